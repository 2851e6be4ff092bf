"""Each family on two ranks at every stage of ZeRO: the Local engine's weights, killed or not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from unittest import mock

import pytest
from family_cases import FAMILIES
from small_run import Job, largest_difference, records, run_job, weights
from spawned import spawn

STAGES = (0, 1, 2, 3)
BOUND = 1e-5
"""Relative difference of a tensor after ten steps of exact LAMB with dropout; measured: 6.5e-7."""
SHORT = (
    "phases.0.steps=5",
    "phases.1.steps=5",
    "train.evaluate_every=10",
    "train.save_every=4",
    "model.dropout=0.1",
)
RecipeOf = Callable[[str], Path]


SPREAD = {name: number % len(STAGES) for number, name in enumerate(FAMILIES)}
"""A stage for each family, where one has to do."""
ALL = [(name, stage) for name in FAMILIES for stage in STAGES]


def train(root: Path, recipe_of: RecipeOf, cases: Iterable[tuple[str, int]]) -> Path:
    """Trainings below ``root``: two processes are started once, for all families and stages."""
    # Stage 3 replaces torch's linear function in its whole process by one that rounds otherwise;
    # what is compared bit for bit is wholly before that or wholly behind it.
    ordered = sorted(cases, key=lambda case: case[1])
    recipes = {name: recipe_of(name) for name, _ in ordered}
    work = [
        (
            recipes[name],
            Job(
                root / f"{name}-{kind}{stage}",
                ("train.engine=deepspeed", f"deepspeed.zero_stage={stage}", *SHORT),
                stop_at,
            ),
        )
        for name, stage in ordered
        for kind, stop_at in (("two", None), ("killed", 6), ("killed", None))
    ]
    spawn(run_all, 2, work)
    with mock.patch.dict(os.environ, {"OMP_NUM_THREADS": "1"}):
        for name, recipe in recipes.items():
            run_job(recipe, Job(root / f"{name}-local", SHORT))
    return root


def run_all(rank: int, work: Sequence[tuple[Path, Job]]) -> None:
    """Trainings one after the other in this process."""
    for recipe, job in work:
        run_job(recipe, job)


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory, recipe_of: RecipeOf) -> Path:
    """One stage a family."""
    return train(tmp_path_factory.mktemp("spread"), recipe_of, SPREAD.items())


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory, recipe_of: RecipeOf) -> Path:
    """All stages of all families."""
    return train(tmp_path_factory.mktemp("every"), recipe_of, ALL)


@pytest.mark.parametrize(("name", "stage"), SPREAD.items())
def test_two_ranks_agree_with_the_local_engine(spread: Path, name: str, stage: int) -> None:
    check_agreement(spread, name, stage)


@pytest.mark.parametrize(("name", "stage"), SPREAD.items())
def test_killed_and_resumed_is_undisturbed_bit_for_bit(spread: Path, name: str, stage: int) -> None:
    check_resumption(spread, name, stage)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stage"), ALL)
def test_each_stage_agrees_and_resumes(every: Path, name: str, stage: int) -> None:
    check_agreement(every, name, stage)
    check_resumption(every, name, stage)


def check_agreement(runs: Path, name: str, stage: int) -> None:
    """The same examples, and the weights that the Local engine ends with."""
    ours, theirs = (
        [record["fingerprint"] for record in records(runs / f"{name}-{run}", "train")]
        for run in (f"two{stage}", "local")
    )
    assert len(set(ours)) == 10
    assert ours == theirs
    trained, reference = weights(runs / f"{name}-two{stage}"), weights(runs / f"{name}-local")
    assert largest_difference(trained, reference) <= BOUND


def check_resumption(runs: Path, name: str, stage: int) -> None:
    """Killed after step 6, gone on from the checkpoint of step 4."""
    killed, undisturbed = runs / f"{name}-killed{stage}", runs / f"{name}-two{stage}"
    (resumed,) = (event for event in records(killed, "event") if event["event"] == "resume")
    assert resumed["step"] == 4
    assert records(killed, "train") == records(undisturbed, "train")
    assert records(killed, "tensors") == records(undisturbed, "tensors")
    trained, reference = weights(killed), weights(undisturbed)
    assert trained.keys() == reference.keys()
    assert all(trained[tensor].equal(reference[tensor]) for tensor in reference)
