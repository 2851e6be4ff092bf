"""A hundred times as much text needs no more memory, in any stage, in any process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from tests.preprocessing.natural import write_natural_text

STAGES = ("ingest", "clean", "deduplicate", "tokenizer", "tokenize", "examples")
LIMIT = 600 * 2**20
SMALL, LARGE = 24 * 10**6, 2_400 * 10**6
SHARD = 8 * 2**20  # so that the small corpus fills the shards that a worker holds, too


def write_recipe(folder: Path, text: Path) -> Path:
    recipe = {
        "seed": 1,
        "corpus": {
            "directory": str(folder / "data"),
            "inputs": [str(text)],
            "validation": {"heldout": {"share": 0.01}},
            "clean": {},
            "deduplicate": {"near": {}},
            "shard_bytes": SHARD,
            "workers": 2,
        },
        "tokenizer": {
            "kind": "wordpiece",
            "vocab_size": 8000,
            "max_training_bytes": 8 * 10**6,
        },
        "examples": {
            "blocks": {
                "length": 128,
                "layout": {"kind": "blocks"},
                "corruption": {"kind": "masked"},
            }
        },
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def anonymous_bytes(process: psutil.Process) -> int:
    """Memory of a process that no file stands behind."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
        return next(
            int(line.split()[1]) * 1024 for line in status.splitlines() if "RssAnon" in line
        )
    except (OSError, StopIteration):
        return 0


def run_watched(stage: str, recipe: Path) -> int:
    """Run a stage as its user would; the most anonymous memory that one process had, in bytes."""
    most = 0
    with subprocess.Popen([sys.executable, "-m", "preprocessing", stage, str(recipe)]) as running:
        root = psutil.Process(running.pid)
        while running.poll() is None:
            for process in (root, *root.children(recursive=True)):
                most = max(most, anonymous_bytes(process))
            time.sleep(0.05)
    assert running.returncode == 0, stage
    return most


@pytest.mark.slow
def test_memory_is_bounded_and_flat_however_large_the_corpus(tmp_path: Path) -> None:
    peaks: dict[int, dict[str, int]] = {}
    for num_bytes in (SMALL, LARGE):
        folder = tmp_path / str(num_bytes)
        folder.mkdir()
        text = folder / "text.txt"
        write_natural_text(text, num_bytes)
        recipe = write_recipe(folder, text)
        peaks[num_bytes] = {stage: run_watched(stage, recipe) for stage in STAGES}
    print({size: {k: v >> 20 for k, v in found.items()} for size, found in peaks.items()})
    for stage in STAGES:
        assert peaks[LARGE][stage] < LIMIT, stage
        assert peaks[LARGE][stage] < 1.1 * peaks[SMALL][stage], stage
