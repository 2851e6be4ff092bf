"""Keys that a configuration gained or lost since a checkpoint are judged by what stands there."""

from __future__ import annotations

from dataclasses import replace
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


def test_phases_that_are_over_keep_their_steps(recipe: Path) -> None:
    phase = "{examples: pairs, steps: %d, batch_rows: 16, learning_rate: 1e-3}"
    examples = next(iter(decode(recipe).preparation.examples))

    def run(*steps: int) -> Run:
        phases = ", ".join(phase.replace("pairs", examples) % count for count in steps)
        return decode(recipe, f"phases=[{phases}]")

    begun = replace(saved_by(run(8, 8, 8)), step=20, phase=2, position=64)
    for other in ((9, 8, 8), (8, 7, 8), (8, 9, 8)):
        with pytest.raises(ConfigError, match=r"phases\.[01]\.steps: 8 in the checkpoint"):
            check_resume(run(*other), begun, DATA, "t")
    assert len(check_resume(run(8, 8, 9), begun, DATA, "t")) == 1

    between = replace(begun, step=16, position=0)
    assert len(check_resume(run(8, 9, 8), between, DATA, "t")) == 1
    for other in ((9, 8, 8), (8, 7, 8)):
        with pytest.raises(ConfigError, match=r"phases\.[01]\.steps: 8 in the checkpoint"):
            check_resume(run(*other), between, DATA, "t")


def test_between_two_phases_the_next_one_may_still_change(recipe: Path) -> None:
    before = decode(recipe)
    mixed = "phases.1={mixture: {pairs: 1}, steps: 8, batch_rows: 8, learning_rate: 4e-3}"
    now = decode(recipe, mixed, "examples.packed.length=40")
    others = {"0": "a", "1": "c"}
    between = replace(saved_by(before), step=12, phase=1, position=0)
    changes = check_resume(now, between, others, "t")
    assert any(change.startswith("phases.1.mixture") for change in changes)
    assert any(change.startswith("examples.packed.length") for change in changes)

    begun = replace(between, step=13, position=16)
    with pytest.raises(ConfigError) as refused:
        check_resume(now, begun, others, "t")
    for key in ("phases.1.mixture", "phases.1.batch_rows", "examples.packed.length", "phases.1: "):
        assert f"  {key}" in str(refused.value)
    with pytest.raises(ConfigError, match=r"examples\.pairs\.length"):
        check_resume(decode(recipe, "examples.pairs.length=24"), between, DATA, "t")
