"""Each family learns from real text within four CPU minutes: more than frequencies, and order."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from family_cases import FAMILIES, Family
from family_runs import model_of

from configs.schema import load, to_plain
from pipeline.commands import evaluate_run
from pipeline.settings import decode_run
from pipeline.training.start import start_training
from preprocessing.commands import run_preparation

pytestmark = pytest.mark.slow

VOCABULARY, STEPS, ROWS, CHARACTERS_READ = 8192, 2000, 48, 4_000_000
LENGTH = 32
"""BERT learns from neighbours after 2 million tokens; in rows of 64, at 7e-3, not after 3.7."""
LINES = 20
"""Of a document: some of the novels have no other parts, and would be held out as a whole."""
CHARACTERS = {"kind": "characters", "vocab_size": VOCABULARY}


def tokenizer_of(family: Family) -> dict[str, Any]:
    """Its own kind with 8k pieces; characters for Chinese."""
    own = dict(family.tokenizer)
    if family.text.startswith("zh"):
        own = CHARACTERS | {key: own[key] for key in ("special_tokens",) if key in own}
    return own | {"vocab_size": VOCABULARY}


def recipe(root: Path, family: Family) -> dict[str, Any]:
    """Two layers of 128."""
    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 128,
        "num_heads": 2,
        "intermediate_size": 256,
        "max_positions": LENGTH,
        "initializer_std": 0.05,
    }
    model = to_plain(model_of(family)) | shape
    if "embedding_size" in model:
        model["embedding_size"] = 128
    return {
        "seed": 1,
        "corpus": {
            "directory": str(root / "data"),
            "inputs": [str(root / "text.txt")],
            "validation": {"heldout": {"share": 0.02}},
            "shard_bytes": 2**21,
            "workers": 2,
            **family.corpus,
        },
        "tokenizer": tokenizer_of(family),
        "examples": {"rows": {"length": LENGTH, **family.examples}},
        "model": model,
        "objectives": [{"kind": name} for name in model_of(family).outputs],
        "optimizer": {"kind": "lamb"},
        "schedule": {"kind": "linear", "warmup_steps": 100},
        "phases": [{"examples": "rows", "steps": STEPS, "batch_rows": ROWS, "learning_rate": 1e-2}],
        "train": {
            "engine": "local",
            "micro_batch_rows": ROWS,
            "log_every": 100,
            "evaluate_every": STEPS,
            "save_every": STEPS,
            "loader_workers": 0,
        },
        "tracking": {"mode": "disabled"},
        "evaluation": {"max_rows": 512},
        "output": {"directory": str(root / "run")},
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_it_learns(real_data: Path, tmp_path: Path, name: str) -> None:
    family = FAMILIES[name]
    files = sorted(path for path in (real_data / family.text).glob("*.txt"))
    texts = [path.read_text(encoding="utf-8") for path in files if path.name != "SOURCE.txt"]
    lines = [line for line in "\n".join(texts)[:CHARACTERS_READ].splitlines() if line.strip()]
    documents = ("\n".join(lines[at : at + LINES]) for at in range(0, len(lines), LINES))
    (tmp_path / "text.txt").write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe(tmp_path, family), sort_keys=False))
    run = decode_run(load(path))
    for _ in run_preparation(run.preparation):
        pass
    begun = time.process_time()
    with mock.patch.dict(os.environ, {"OMP_NUM_THREADS": "1"}):
        start_training(run)
    assert time.process_time() - begun < 240
    held_out = evaluate_run(run, None)["sets"]["heldout"]
    assert held_out["below_unigram"] >= 0.3
    assert held_out["below_shuffled"] >= 0.15
