"""The loss of packed rows is that of unpacked ones, whatever layout cut the sequences."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch

from configs.schema import load
from pipeline.data import to_batch
from pipeline.models.bert import Bert, BertConfig
from pipeline.objectives.base import classification_loss
from preprocessing.commands import run_preparation
from preprocessing.layouts import LayoutConfig
from preprocessing.rows import RowSet
from preprocessing.settings import Preparation, decode_preparation

LENGTH = 48
OF_ITS_OWN = {"dialogues", "relevance"}
"""Layouts whose documents are no prose; their arrays are compared elsewhere."""
KINDS = [
    kind
    for member in get_args(get_args(LayoutConfig)[0])
    if (kind := get_args(get_type_hints(member)["kind"])[0]) not in OF_ITS_OWN
]
SETTINGS: dict[str, Any] = {
    "discourse_relation": {"markers": {"contrast": ["but"], "addition": ["and"]}}
}
FRAMES = {"xlnet": "sep_cls", "streams": "sep"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Preparation:
    """Every layout twice, from prose in which markers join sentences."""
    folder = tmp_path_factory.mktemp("layouts")
    chooser = np.random.default_rng(0)
    words = [f"{a}{b}" for a in ("ka", "lo", "mi", "nu", "re", "so", "ti") for b in "aeiou"]

    def sentence() -> str:
        own = " ".join(chooser.choice(words, chooser.integers(3, 9)))
        joined = chooser.choice(["but", "and"])
        return f"{own.capitalize()}, {joined} {' '.join(chooser.choice(words, 3))}."

    texts = [" ".join(sentence() for _ in range(chooser.integers(2, 9))) for _ in range(40)]
    (folder / "a.txt").write_text("\n\n".join(texts) + "\n")
    examples: dict[str, Any] = {
        f"{kind}-{pack}": {
            "length": LENGTH,
            "layout": {"kind": kind, **SETTINGS.get(kind, {})},
            "pack": pack,
            "frame": FRAMES.get(kind, "cls_sep"),
            "corruption": {"kind": "masked"},
        }
        for kind in KINDS
        for pack in (False, True)
    }
    plain = {
        "seed": 1,
        "corpus": {"directory": str(folder / "data"), "inputs": [str(folder / "a.txt")]},
        "tokenizer": {"kind": "wordpiece", "vocab_size": 120},
        "examples": examples,
    }
    (folder / "recipe.yaml").write_text(json.dumps(plain))
    preparation = decode_preparation(load(folder / "recipe.yaml"))
    for _ in run_preparation(preparation):
        pass
    return preparation


@pytest.fixture(scope="module")
def model() -> Bert:
    torch.manual_seed(0)
    config = BertConfig(
        family="bert",
        vocab_size=130,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        intermediate_size=32,
        max_positions=LENGTH,
        next_sentence=False,
    )
    return Bert(config).double().eval()


@torch.no_grad()
def score(preparation: Preparation, name: str, model: Bert) -> tuple[int, float, float]:
    """Rows, targets and summed loss of an examples set."""
    rows = RowSet(preparation.examples_directory(name), "train", seed=preparation.seed)
    arrays = rows.arrays(
        preparation.examples[name].corruption, np.arange(rows.num_rows[0]), epoch=2
    )
    batch = to_batch(replace(arrays, targets={"masked_lm": arrays.targets["masked_lm"]}))
    loss = classification_loss(model(batch)["masked_lm"], batch.targets["masked_lm"].labels)
    return rows.num_rows[0], float(loss.count), float(loss.total)


@pytest.mark.parametrize("kind", KINDS)
def test_packed_rows_have_the_loss_of_unpacked_ones(
    prepared: Preparation, model: Bert, kind: str
) -> None:
    rows, targets, alone = score(prepared, f"{kind}-False", model)
    packed_rows, packed_targets, together = score(prepared, f"{kind}-True", model)
    assert packed_targets == targets > 20
    assert packed_rows <= rows
    assert together == pytest.approx(alone, rel=1e-6)  # losses are summed in fp32
    if kind in ("pairs", "blocks", "doc_sentences", "sentence_order"):
        assert packed_rows < rows, "something was packed"
