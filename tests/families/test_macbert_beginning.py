"""MacBERT begins with a BERT: a checkpoint of ours, or a folder of transformers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest
import torch
from torch import Tensor

from configs.schema import ConfigError, load
from pipeline.commands import export_run, import_folder
from pipeline.evaluation.checkpoints import load_model, newest
from pipeline.settings import Run, decode_run
from pipeline.training.checkpoints.initial import find_beginning
from pipeline.training.hosts import Host
from pipeline.training.start import start_training

HERE = Host(0, 1, (0,))
ORDER, NEXT = "heads.sentence_order.", "heads.next_sentence."
ALLOWED = f"allow_missing: ['{ORDER}*'], allow_unused: ['{NEXT}*']"


class Begun(NamedTuple):
    """The recipe of a MacBERT, and what it may begin with."""

    recipe: Path
    bert: Run
    sources: dict[str, Path]


@pytest.fixture(scope="module")
def begun(recipe_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Begun:
    """A BERT of one step, as a checkpoint and by way of transformers."""
    root = tmp_path_factory.mktemp("begun")
    bert = small(recipe_of("bert"), root / "bert", 6e-3)
    train(bert)
    export_run(bert, None)
    import_folder(root / "bert" / "export", root / "imported")
    sources = {"checkpoint": root / "bert", "folder": root / "imported"}
    return Begun(recipe_of("macbert"), bert, sources)


def small(recipe: Path, output: Path, rate: float, *overrides: str) -> Run:
    short = [f"phases.{at}.steps=1" for at in (0, 1)]
    rates = [f"phases.{at}.learning_rate={rate}" for at in (0, 1)]
    own = ["train.evaluate_every=2", "train.save_every=2", "schedule.warmup_steps=0"]
    return decode_run(
        load(recipe, [*short, *rates, *own, f"output.directory={output}", *overrides])
    )


def train(run: Run) -> dict[str, Tensor]:
    """Its weights after two steps."""
    with mock.patch.dict(os.environ, {"OMP_NUM_THREADS": "1"}):
        start_training(run)
    return load_model(run, newest(run)).model.state_dict()


@pytest.mark.parametrize("source", ["checkpoint", "folder"])
def test_body_and_token_head_are_those_of_the_bert(
    begun: Begun, tmp_path: Path, source: str
) -> None:
    init = f"train.init_from={{checkpoint: {begun.sources[source]}, {ALLOWED}}}"
    # One seed draws alike for both, unless they differ in how widely.
    ours = train(small(begun.recipe, tmp_path / "run", 1e-9, init, "model.initializer_std=0.2"))
    theirs = load_model(begun.bert, newest(begun.bert)).model.state_dict()
    drawn = {name for name in ours if name.startswith(ORDER)}
    left = {name for name in theirs if name.startswith(NEXT)}
    assert len(drawn) == len(left) == 4
    assert ours.keys() - drawn == theirs.keys() - left
    for name in ours.keys() - drawn:  # two steps of a rate that moves nothing by more
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-7, rtol=0)
    for name in ("pooler.weight", "classifier.weight"):
        assert ours[ORDER + name].std() > 5 * theirs[NEXT + name].std()


def test_the_beginning_says_what_was_drawn_and_what_was_left(begun: Begun, tmp_path: Path) -> None:
    init = f"train.init_from={{checkpoint: {begun.sources['checkpoint']}, {ALLOWED}}}"
    run = small(begun.recipe, tmp_path / "run", 1e-3, init)
    found = find_beginning(run, HERE)
    assert found is not None
    parts = ("pooler.weight", "pooler.bias", "classifier.weight", "classifier.bias")
    assert set(found.facts["missing"]) == {ORDER + part for part in parts}
    assert set(found.facts["unused"]) == {NEXT + part for part in parts}


def test_heads_are_not_exchanged_without_leave(begun: Begun, tmp_path: Path) -> None:
    init = f"train.init_from={{checkpoint: {begun.sources['checkpoint']}}}"
    run = small(begun.recipe, tmp_path / "run", 1e-3, init)
    with pytest.raises(ConfigError, match=r"heads\.sentence_order\.pooler\.weight: nothing in the"):
        find_beginning(run, HERE)
