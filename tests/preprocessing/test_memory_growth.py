"""A hundred times as much text needs no more memory, in any stage, in any process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.preprocessing.natural import write_natural_text

STAGES = ("ingest", "clean", "deduplicate", "tokenizer", "tokenize", "examples")
LIMIT = 600 * 2**20
FIRST = 10**6  # after it everything is compiled
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
            # What a trainer holds follows from the distinct words of so much text, and a sample
            # of a larger corpus has more of them.
            "max_training_bytes": 5 * 10**5,
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


def family(process: int) -> list[int]:
    """A process and what descends from it."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [process, *(one for child in children for one in family(int(child)))]


def anonymous_bytes(process: int) -> int:
    """Memory of a process that no file stands behind; 0 of one that has gone."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")]
    return int(sizes[0]) * 1024 if sizes else 0


def run_watched(stage: str, recipe: Path) -> int:
    """Run a stage as its user would; the most anonymous memory that one process had, in bytes."""
    most = 0
    with subprocess.Popen([sys.executable, "-m", "preprocessing", stage, str(recipe)]) as running:
        while running.poll() is None:
            most = max(most, *map(anonymous_bytes, [running.pid, *family(running.pid)]))
            time.sleep(0.004)
    assert running.returncode == 0, stage
    return most


@pytest.mark.slow
def test_memory_is_bounded_and_flat_however_large_the_corpus(tmp_path: Path) -> None:
    peaks: dict[int, dict[str, int]] = {}
    for num_bytes in (FIRST, SMALL, LARGE):
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
