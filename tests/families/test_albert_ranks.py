"""Shared weights on two ranks: at each stage, moved between stages, and computed again.

What all families must do on two ranks is tested in test_family_ranks.py, with whole layers shared.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from small_run import Job, largest_difference, records, run_job, run_jobs, weights

RecipeOf = Callable[[str], Path]

STAGES = (0, 1, 2, 3)
STEPS = 4
BOUND = 1e-5
"""Relative difference of a tensor after four steps of exact LAMB; measured: 1e-6 at most."""
SHORT = (
    "phases.0.steps=2",
    "phases.1.steps=2",
    f"train.evaluate_every={STEPS}",
    "train.save_every=1",
    "model.dropout=0.1",
    "model.num_layers=4",
)
SHARED = {
    "attention": ("model.sharing=attention",),
    "ffn": ("model.sharing=ffn",),
    "groups": ("model.num_groups=2",),
}
OWN = {
    "attention": {"attention.query.weight": 1, "feed_forward.up.weight": 4},
    "ffn": {"attention.query.weight": 4, "feed_forward.up.weight": 1},
    "groups": {"attention.query.weight": 2, "feed_forward.up.weight": 2},
}
"""How many tensors of a name there are."""
AGAIN = "train.activation_checkpointing=full"


def stage(number: int) -> str:
    return f"deepspeed.zero_stage={number}"


MOVED = ((0, 1), (1, 2), (2, 3), (3, None))
"""Stages that one run is at in turn, and where it is stopped."""
APART = {
    **{f"attention-{number}": (*SHARED["attention"], stage(number)) for number in STAGES},
    "ffn-3": (*SHARED["ffn"], stage(3), AGAIN),
    "groups-2": (*SHARED["groups"], stage(2), AGAIN),
    "groups-3": (*SHARED["groups"], stage(3), "deepspeed.zero_init=true", AGAIN),
}
"""Trainings that stay where they are, by what is shared and the stage."""


def train(recipe: Path, jobs: Sequence[Job]) -> None:
    """These trainings in two processes, and in one what they are held against."""
    on_two = ("train.engine=deepspeed", *SHORT)
    run_jobs(recipe, [replace(job, overrides=(*on_two, *job.overrides)) for job in jobs], ranks=2)
    with mock.patch.dict(os.environ, {"OMP_NUM_THREADS": "1"}):
        for kind in {job.output.name.split("-")[0] for job in jobs}:
            local = jobs[0].output.parent / f"{kind}-local"
            run_job(recipe, Job(local, (*SHORT, *SHARED[kind])))


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory, recipe_of: RecipeOf) -> Path:
    root = tmp_path_factory.mktemp("apart")
    train(recipe_of("albert"), [Job(root / name, settings) for name, settings in APART.items()])
    return root


def check(root: Path, name: str) -> None:
    """The weights of one process, and a trust ratio for each tensor, however often it is used."""
    kind = name.split("-")[0]
    trained, reference = weights(root / name), weights(root / f"{kind}-local")
    assert largest_difference(trained, reference) <= BOUND
    assert [record["step"] for record in records(root / name, "train")] == [1, 2, 3, 4]
    for tensor, count in OWN[kind].items():
        assert sum(own.endswith(tensor) for own in trained) == count
    two, one = (records(root / run, "tensors")[-1] for run in (name, f"{kind}-local"))
    assert {own for own in trained if own.endswith(".query.weight")} <= two["trust_ratio"].keys()
    # A key's bias has no gradient but for rounding.
    ratios, expected = (
        {own: ratio for own, ratio in each["trust_ratio"].items() if not own.endswith("key.bias")}
        for each in (two, one)
    )
    assert ratios == pytest.approx(expected, rel=1e-3)


def test_a_shared_part_trains_at_each_stage_in_turn(recipe_of: RecipeOf, tmp_path: Path) -> None:
    """Each goes on from what the one before has saved."""
    place, shared = tmp_path / "attention-moved", SHARED["attention"]
    jobs = [Job(place, (*shared, stage(number)), stop_at) for number, stop_at in MOVED]
    train(recipe_of("albert"), jobs)
    check(tmp_path, place.name)


@pytest.mark.slow
@pytest.mark.parametrize("name", APART)
def test_what_is_shared_trains_on_two_ranks_as_on_one(apart: Path, name: str) -> None:
    check(apart, name)
