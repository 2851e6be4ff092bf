"""Keys that a configuration gained or lost since a checkpoint are judged by what stands there."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.schema import ConfigError, load
from pipeline.settings import Run, decode_run
from pipeline.training.checkpoints.checkpoint import State
from pipeline.training.checkpoints.resume import check_resume

DATA = {"0": "a", "1": "b"}


def decode(recipe: Path, *overrides: str) -> Run:
    return decode_run(load(recipe, overrides))


def saved_by(run: Run) -> State:
    return State(
        step=4,
        phase=0,
        position=96,
        seed=3,
        engine="deepspeed",
        world_size=2,
        zero_stage=1,
        data=DATA,
        tokenizer="t",
        leaves={key: value for key, (value, _) in run.resume_leaves().items()},
        run_id="id",
        weights="w",
        files={},
        parts=(0, 1),
    )


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("train.guards.spike={factor: 3.0}", "train.guards.spike"),
        ("train.stop_if=[{kind: divergence}]", "train.stop_if"),
        ("train.init_from={checkpoint: somewhere}", "train.init_from"),
        ("deepspeed.options={zero_optimization: {sub_group_size: 9}}", "deepspeed.options"),
        ("train.engine=local", "train.engine"),
        ("deepspeed.zero_stage=3", "deepspeed.zero_stage"),
    ],
)
def test_recorded_sections_may_come_and_go(recipe: Path, override: str, key: str) -> None:
    without, with_it = decode(recipe), decode(recipe, override)

    for before, now in ((without, with_it), (with_it, without)):
        changes = check_resume(now, saved_by(before), DATA, "t")
        assert changes
        assert all(change.startswith(key) for change in changes)
    assert check_resume(with_it, saved_by(with_it), DATA, "t") == []


def test_frozen_keys_are_refused_together(recipe: Path) -> None:
    changed = decode(recipe, "seed=4", "model.hidden_size=64", "train.precision=bf16")

    with pytest.raises(ConfigError) as caught:
        check_resume(changed, saved_by(decode(recipe)), {**DATA, "0": "other"}, "other")
    assert [problem.strip().split(":")[0] for problem in caught.value.problems[1:-1]] == [
        "model.hidden_size",
        "seed",
        "train.precision",
        "phases.0",
        "tokenizer",
    ]
