"""A run moved between engines, ZeRO stages and numbers of ranks goes on as if nothing happened."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_run import Job, largest_difference, records, run_jobs, weights

pytestmark = pytest.mark.slow

STEPS = 60
STOPS = (14, 31, 45)
LENGTH = (
    "phases.0.steps=36",
    f"phases.1.steps={STEPS - 36}",
    "train.save_every=5",
    f"train.evaluate_every={STEPS}",
)
BOUND = 1e-5
"""Relative difference of a tensor; measured: 4.6e-7 at most."""

ADAMW = (
    "optimizer={kind: adamw}",
    "phases.0.learning_rate=1e-3",
    "phases.1.learning_rate=1e-3",
)
OFFLOAD = "deepspeed.offload_optimizer=cpu"


def stage(number: int) -> str:
    return f"deepspeed.zero_stage={number}"


def sub_groups(elements: int) -> str:
    return f"deepspeed.options.zero_optimization.sub_group_size={elements}"


RESIZED = {
    "stage1": (stage(1),),
    "stage2-offload-adamw": (stage(2), OFFLOAD, *ADAMW),
    "stage3-offload-sub-groups": (stage(3), OFFLOAD, sub_groups(5000)),
}
"""Runs that are on 1, 2, 3 and again 2 ranks."""

CHANGED = ((stage(1),), (stage(2),), (stage(3), sub_groups(5000)), (stage(3), sub_groups(2000)))
"""What another run on two ranks is at, one after the other, and then at stage 1 again."""

ENGINES = ("train.engine=local", stage(3), stage(0), "train.engine=local")
"""What one is trained by on 1, 2, 3 and again 1 rank."""

NAMES = (*RESIZED, "changed", "engines")


@pytest.fixture(scope="module")
def runs(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All trainings of this file: one start of processes a change of their number."""
    root = tmp_path_factory.mktemp("moving")

    def leg(name: str, overrides: tuple[str, ...], stop_at: int | None) -> Job:
        return Job(root / name, (*LENGTH, *overrides), stop_at=stop_at)

    def resized(stop_at: int | None) -> list[Job]:
        return [leg(name, overrides, stop_at) for name, overrides in RESIZED.items()]

    def engine(number: int, stop_at: int | None) -> Job:
        return leg("engines", (ENGINES[number],), stop_at)

    undisturbed = [
        leg("undisturbed", ("train.engine=local",), None),
        leg("undisturbed-adamw", ("train.engine=local", *ADAMW), None),
    ]
    changed = [
        *(
            leg("changed", options, stop)
            for options, stop in zip(CHANGED, (*STOPS, 52), strict=True)
        ),
        leg("changed", CHANGED[0], None),
    ]
    run_jobs(recipe, [*undisturbed, engine(0, STOPS[0]), *resized(STOPS[0])], ranks=1)
    run_jobs(recipe, [engine(1, STOPS[1]), *changed, *resized(STOPS[1])], ranks=2)
    run_jobs(recipe, [engine(2, STOPS[2]), *resized(STOPS[2])], ranks=3)
    run_jobs(recipe, resized(None), ranks=2)
    run_jobs(recipe, [engine(3, None)], ranks=1)
    return root


@pytest.mark.parametrize("name", NAMES)
def test_moved_run_ends_where_the_undisturbed_one_does(runs: Path, name: str) -> None:
    undisturbed = runs / ("undisturbed-adamw" if "adamw" in name else "undisturbed")

    seen = [record["fingerprint"] for record in records(runs / name, "train")]
    assert seen == [record["fingerprint"] for record in records(undisturbed, "train")]
    assert len(set(seen)) == STEPS
    difference = largest_difference(weights(runs / name), weights(undisturbed))
    print(f"{name}: {difference:.2e}")
    assert difference <= BOUND


@pytest.mark.parametrize("name", RESIZED)
def test_run_was_on_these_ranks(runs: Path, name: str) -> None:
    begun = [r for r in records(runs / name, "event") if r["event"] in ("start", "resume")]

    assert [event["ranks"] for event in begun] == [1, 2, 3, 2]


def test_changes_of_stage_and_engine_are_recorded(runs: Path) -> None:
    def changes(name: str, key: str) -> list[str]:
        found = [r["change"] for r in records(runs / name, "event") if r["event"] == "change"]
        return [change for change in found if change.startswith(key)]

    assert changes("changed", "deepspeed.zero_stage") == [
        f"deepspeed.zero_stage: {before} in the checkpoint, {now} now"
        for before, now in ((1, 2), (2, 3), (3, 1))
    ]
    assert len(changes("changed", "deepspeed.options")) == 3
    assert changes("engines", "train.engine") == [
        "train.engine: 'local' in the checkpoint, 'deepspeed' now",
        "train.engine: 'deepspeed' in the checkpoint, 'local' now",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_beside_the_checkpoints(runs: Path, name: str) -> None:
    newest = runs / name / "checkpoints" / "step-00000060"

    kept = sorted(path.name for path in newest.parent.iterdir())
    assert kept == ["latest", "step-00000055", newest.name]
    kind = "local" if name == "engines" else "deepspeed"
    assert sorted(path.name for path in newest.iterdir() if path.is_dir()) == [kind, "tokenizer"]
