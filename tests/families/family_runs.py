"""A family's small run: its recipe on a made-up corpus, in padded rows and then in packed ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from family_cases import Family
from small_run import write_corpus

from configs.schema import load, to_plain
from pipeline.models import ModelConfig
from preprocessing.commands import run_preparation
from preprocessing.settings import decode_preparation

LENGTH, VOCABULARY, STEPS = 96, 320, 20
ROWS, MICRO_BATCH_ROWS = 12, 4
"""Three micro-batches a step, which do not divide over two ranks."""


def model_of(family: Family) -> ModelConfig:
    """The tiny model, with room for the vocabulary."""
    return replace(family.tiny, vocab_size=VOCABULARY, **family.trained)


def recipe(root: Path, family: Family) -> Mapping[str, Any]:
    """As many steps of padded rows as of packed ones."""
    model = model_of(family)
    rows = {"length": LENGTH, **family.examples}
    phase = {"steps": STEPS // 2, "batch_rows": ROWS, "learning_rate": 6e-3}
    return {
        "seed": 3,
        "corpus": {
            "directory": str(root / "data"),
            "inputs": [str(root / "corpus.txt")],
            "validation": {"heldout": {"share": 0.1}},
            "shard_bytes": 20000,
            **family.corpus,
        },
        "tokenizer": dict(family.tokenizer),
        "examples": {"padded": rows, "packed": {**rows, "pack": True}},
        "model": to_plain(model),
        "objectives": [{"kind": name} for name in model.outputs],
        "optimizer": {"kind": "lamb"},
        "schedule": {"kind": "constant", "warmup_steps": 2},
        "phases": [{"examples": "padded", **phase}, {"examples": "packed", **phase}],
        "train": {
            "engine": "local",
            "micro_batch_rows": MICRO_BATCH_ROWS,
            "log_every": 1,
            "evaluate_every": STEPS,
            "save_every": 4,
            "loader_workers": 0,
        },
        "tracking": {"mode": "disabled"},
        "evaluation": {"max_rows": 20, "micro_batch_rows": MICRO_BATCH_ROWS},
        "output": {"directory": str(root / "run")},
    }


def prepare_family(root: Path, name: str, family: Family) -> Path:
    """Write corpus and recipe below ``root`` and run the stages; returns the recipe."""
    root.mkdir()
    write_corpus(root / "long.txt", documents=200)
    sentences = (root / "long.txt").read_text().replace("\n\n", " ").split(". ")
    documents = [". ".join(sentences[at : at + 2]) for at in range(0, len(sentences), 2)]
    (root / "corpus.txt").write_text(".\n\n".join(documents) + "\n")
    path = root / f"{name}.yaml"
    path.write_text(yaml.safe_dump(dict(recipe(root, family)), sort_keys=False))
    for _ in run_preparation(decode_preparation(load(path))):
        pass
    return path
