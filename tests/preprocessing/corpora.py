"""Tiny corpora, their configurations, and what a stage has left on the disk."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from configs.schema import load
from preprocessing.commands import STAGES
from preprocessing.executors.local import LocalExecutor
from preprocessing.settings import Preparation, decode_preparation
from preprocessing.stage import Outcome, Stage, run_stage
from preprocessing.storage import Manifest

LENIENT = {"profiles": {"default": {"gopher": None, "repetition": None}}}
"""A ``clean`` section that keeps made-up text."""
ROAD = ("ingest", "deduplicate", "tokenizer", "tokenize", "examples")
"""The commands that do something without a ``clean`` section."""
_SYLLABLES = [a + b for a in "bdfgklmnprst" for b in "aeiou"]


def make_text(num_documents: int, *, seed: int = 0, sentences: int = 6) -> list[str]:
    """Documents of made-up English-like words; equal parameters give equal text."""
    draw = random.Random(seed)
    words = ["".join(draw.choices(_SYLLABLES, k=draw.randint(1, 3))) for _ in range(120)]

    def sentence() -> str:
        return " ".join(draw.choices(words, k=draw.randint(1, 12))).capitalize() + "."

    return [
        " ".join(sentence() for _ in range(draw.randint(1, sentences)))
        for _ in range(num_documents)
    ]


def write_documents(path: Path, documents: Sequence[str]) -> Path:
    """A file of the form ``text``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(documents) + "\n")
    return path


EXAMPLES: Mapping[str, Any] = {
    "pairs": {
        "length": 32,
        "layout": {"kind": "pairs"},
        "pack": True,
        "corruption": {"kind": "masked"},
        "mode": "static",
        "copies": 2,
    }
}


def write_config(folder: Path, **sections: Any) -> Path:
    """A configuration file; a section that is given replaces parts of the usual one."""
    corpus = {
        "directory": str(folder / "data"),
        "inputs": [str(folder / "raw" / "*.txt")],
        "validation": {"heldout": {"share": 0.1}},
        "shard_bytes": 4096,
    }
    plain = {
        "seed": sections.get("seed", 1),
        "corpus": corpus | sections.get("corpus", {}),
        "tokenizer": sections.get("tokenizer", {"kind": "wordpiece", "vocab_size": 200}),
        "examples": sections.get("examples", EXAMPLES),
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(plain, indent=1))  # JSON is YAML
    return path


def prepare_config(folder: Path, **sections: Any) -> Preparation:
    """A decoded configuration (see :func:`write_config`)."""
    return decode_preparation(load(write_config(folder, **sections)))


def run_stages(
    preparation: Preparation, names: Sequence[str] = tuple(STAGES), *, overwrite: bool = False
) -> list[Outcome]:
    """Run some stages in the order of the road, without progress."""
    executor = LocalExecutor(preparation.corpus.workers)
    return [
        run_stage(
            make(),
            executor=executor,
            overwrite=overwrite,
            check_disk=preparation.corpus.check_disk,
            quiet=True,
        )
        for name in names
        for make in STAGES[name][1](preparation)
    ]


def stage_makers(preparation: Preparation) -> dict[str, Callable[[], Stage]]:
    """How to make each stage of a preparation, by its own name (not the command's)."""
    makers = [make for _, make in STAGES.values() for make in make(preparation)]
    return {make.func.name: make for make in makers}  # type: ignore[attr-defined]


def run_alone(preparation: Preparation, name: str) -> Outcome:
    """Run one stage by its own name, in this process."""
    return run_stage(stage_makers(preparation)[name](), quiet=True)


def tree(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, hidden ones too, with its bytes."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def shard_rows(directory: Path, split: str) -> list[dict[str, Any]]:
    """The rows of a split as plain Arrow gives them."""
    rows = []
    for shard in Manifest.read(directory).of(split):
        with pa.memory_map(str(directory / shard.name)) as file:
            rows += pa.ipc.open_file(file).read_all().to_pylist()
    return rows


class ListStore:
    """Documents given as lists of sentences of token ids, read as a TokenStore is."""

    def __init__(self, documents: Sequence[Sequence[Sequence[int]]]) -> None:
        self._documents = documents

    @property
    def num_documents(self) -> int:
        return len(self._documents)

    def ids(self, document: int) -> NDArray[Any]:
        return np.array([i for sentence in self._documents[document] for i in sentence], np.uint16)

    def sentence_lengths(self, document: int) -> NDArray[Any]:
        return np.array([len(sentence) for sentence in self._documents[document]], np.int32)
