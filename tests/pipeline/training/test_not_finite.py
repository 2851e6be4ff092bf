"""A step whose loss or gradient is not finite, on one rank: computed again, or passed over whole.

A step that is passed over must leave the same bits as one that ``train.skip`` names: weights,
moments and counts, since all of them show in the steps after it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from faults import STOPPED, Fault, run_faulty, run_faulty_jobs
from small_run import Job, prepare, records, weights

from pipeline.training.reproduce import main as reproduce
from pipeline.training.reproduce import reproduce as findings

STAGES = (0, 1, 2, 3)
SHORT = ("phases.0.steps=4", "phases.1.steps=1", "train.save_every=100")
SKIP = "train.skip=[[2, 4]]"
CLIPPING = {"clipped": (), "unclipped": ("train.gradient_clipping=0",)}


def faults(rank: int) -> tuple[Fault, ...]:
    """Step 2 recovers when it is computed again; steps 3 and 4 never do."""
    return (
        Fault("loss", 1, 2, times=1, rank=rank),
        Fault("loss", 2, 3, rank=rank),
        Fault("element", 3, 4, rank=rank),
    )


def jobs_of(root: Path, ranks: int) -> list[tuple[Job, tuple[Fault, ...]]]:
    """Per stage, a run that is spoiled on its last rank and one that is told to pass over it."""
    jobs = []
    for stage in STAGES:
        for name, clipping in CLIPPING.items() if ranks > 1 else [("clipped", ())]:
            settings = (*SHORT, f"deepspeed.zero_stage={stage}", *clipping)
            output = root / f"{ranks}-{stage}-{name}"
            jobs.append((Job(output / "faulty", settings), faults(ranks - 1)))
            jobs.append((Job(output / "skip", (*settings, SKIP)), ()))
    return jobs


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("not-finite")
    recipe = prepare(root)
    bf16 = ("train.precision=bf16", "deepspeed.zero_stage=1", *SHORT)
    others = [
        (Job(root / "bf16" / "faulty", bf16), faults(1)),
        (Job(root / "bf16" / "skip", (*bf16, SKIP)), ()),
        (
            Job(root / "ended", (*SHORT, "train.guards.max_skipped=1")),
            (Fault("gradient", 2, rank=0),),
        ),
    ]
    run_faulty_jobs(recipe, jobs_of(root, 1), ranks=1)
    run_faulty_jobs(recipe, [*others, *jobs_of(root, 2)], ranks=2)
    return root


def assert_same(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not ours[name].equal(theirs[name])] == []


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("ranks", "clipping"), [(1, "clipped"), (2, "clipped"), (2, "unclipped")])
def test_step_that_is_not_finite_on_one_rank_changes_nothing(
    runs: Path, ranks: int, clipping: str, stage: int
) -> None:
    run = runs / f"{ranks}-{stage}-{clipping}"

    assert_same(run / "faulty", run / "skip")
    trained = records(run / "faulty", "train")
    assert [(record["step"], record["skipped_steps"]) for record in trained] == [
        (1, 0),
        (2, 0),
        (5, 2),
    ]
    assert [record | {"skipped_steps": 0} for record in trained] == records(run / "skip", "train")
    told = [event["told"] for event in records(run / "faulty", "event") if "told" in event]
    assert told == [
        "step 2 was computed 2 times",
        "step 3 is passed over: its loss or gradient is not finite",
        "step 4 is passed over: its loss or gradient is not finite",
    ]


def test_bf16_step_that_is_not_finite_changes_nothing(runs: Path) -> None:
    assert_same(runs / "bf16" / "faulty", runs / "bf16" / "skip")


def test_finite_gradients_with_a_norm_beyond_fp32_change_nothing(
    runs: Path, tmp_path: Path
) -> None:
    settings = (*SHORT, "train.engine=local")
    run_faulty(runs / "recipe.yaml", Job(tmp_path / "faulty", settings), Fault("large", 2, 4))
    run_faulty(runs / "recipe.yaml", Job(tmp_path / "skip", (*settings, SKIP)))

    assert_same(tmp_path / "faulty", tmp_path / "skip")


def test_too_many_in_a_row_end_the_run_on_all_ranks(runs: Path) -> None:
    reasons = [(runs / "ended" / f"{STOPPED}.{rank}").read_text() for rank in (0, 1)]

    assert reasons[0] == reasons[1]
    assert reasons[0].startswith(
        "stopped after step 4: the loss or gradient was not finite in 2 steps in a row"
    )
    folder = runs / "ended" / "failures" / "step-00000003"
    assert reasons[0].endswith(f"python -m pipeline.training.reproduce {folder}")
    assert not (runs / "ended" / "checkpoints").exists()


def test_dump_computes_the_losses_of_the_step_again(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fault was in none of what is written down: all is finite here."""
    folder = runs / "ended" / "failures" / "step-00000003"
    found = list(findings(folder))

    assert [(finding.rank, finding.number) for finding in found] == [(0, 0), (0, 2), (1, 1), (1, 3)]
    assert all(finding.finite for finding in found)
    shares = sum(finding.loss for finding in found)
    before = records(runs / "ended", "train")[-1]
    assert shares == pytest.approx(before["loss"], rel=0.1)
    assert reproduce([str(folder)]) == 1
    assert "suspect a device" in capsys.readouterr().err


def test_reproduction_names_the_first_module_that_is_not_finite(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    settings = ("train.engine=local", "train.guards.retries=0", "train.guards.max_skipped=0")
    job = Job(output, (*SHORT, *settings))

    reason = run_faulty(runs / "recipe.yaml", job, Fault("weights", 2))

    assert reason is not None
    folder = output / "failures" / "step-00000002"
    assert str(folder) in reason
    assert reproduce([str(folder)]) == 0
    lines = capsys.readouterr().err.splitlines()
    told = [line for line in lines if line.startswith("rank 0, micro-batch")]
    assert len(told) == 3
    assert all("loss nan, first at model." in line and "orm" in line for line in told)
    events = [event["event"] for event in records(output, "event")]
    assert events[-2:] == ["not_finite", "stopped"]


def test_reproduction_refuses_another_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce([str(tmp_path)]) == 2
    assert "failure.json" in capsys.readouterr().err


def test_validation_that_is_not_finite_is_told(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.training import loop

    monkeypatch.setattr(
        loop, "evaluate_rows", lambda *_: torch.tensor([[float("nan"), 1, 0], [1, 1, 1]])
    )
    output = tmp_path / "run"
    run_faulty(runs / "recipe.yaml", Job(output, (*SHORT, "train.engine=local")))

    assert "the loss on 'heldout' is not finite" in capsys.readouterr().err
    assert records(output, "validation") == []
    event = next(event for event in records(output, "event") if event["event"] == "not_finite")
    assert event["set"] == "heldout"
