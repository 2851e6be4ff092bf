"""Runs that are stopped, set back or told to pass over steps; and ranks that do not agree."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from faults import Fault, run_faulty
from small_run import Job, records, weights
from spawned import spawn

from configs.schema import load
from pipeline.phases import Timeline
from pipeline.settings import decode_run
from pipeline.training import start
from pipeline.training.agreement import Agreed, TrainingStopped
from pipeline.training.checkpoints.checkpoint import Checkpoints, read_state

LOCAL = ("train.engine=local", "phases.1.steps=4", "train.evaluate_every=100")
SPIKE = "train.guards.spike={window: 4, patience: 2, rewinds: 1}"


def events(output: Path, what: str) -> list[dict[str, object]]:
    return [event for event in records(output, "event") if event["event"] == what]


def steps(output: Path) -> list[int]:
    return [record["step"] for record in records(output, "train")]


def assert_same(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert [name for name in ours if not ours[name].equal(theirs[name])] == []


# -- spikes ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spiked(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Losses rise from step 10 on; one run is killed after it was set back."""
    root = tmp_path_factory.mktemp("spiked")
    rise = Fault("raised", 10, 13)
    assert run_faulty(recipe, Job(root / "spiked", (*LOCAL, SPIKE)), rise) is None
    assert run_faulty(recipe, Job(root / "killed", (*LOCAL, SPIKE), stop_at=13), rise) is None
    assert run_faulty(recipe, Job(root / "killed", (*LOCAL, SPIKE)), rise) is None
    assert run_faulty(recipe, Job(root / "skip", (*LOCAL, "train.skip=[[8, 12]]"))) is None
    return root


@pytest.mark.parametrize("name", ["spiked", "killed"])
def test_run_is_set_back_before_a_spike_and_passes_over_it(spiked: Path, name: str) -> None:
    output = spiked / name

    assert_same(output, spiked / "skip")
    assert json.loads((output / "skips.json").read_text()) == [[8, 12]]
    assert steps(output) == [*range(1, 9), *range(13, 17)]
    (told,) = events(output, "set_back")
    assert str(told["told"]).endswith("set back to step 8 and passes over what follows")
    newest = Checkpoints(output / "checkpoints").latest()
    assert newest is not None
    assert read_state(newest).skips == ((8, 12),)


def test_checkpoints_saved_within_a_spike_are_abandoned(recipe: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    settings = (*LOCAL, SPIKE, "train.save_every=1", "train.keep_checkpoints=6")

    run_faulty(recipe, Job(output, settings), Fault("raised", 9, 11))

    kept = Checkpoints(output / "checkpoints").steps()
    assert kept == [9, 12, 13, 14, 15, 16]
    assert json.loads((output / "skips.json").read_text()) == [[9, 11]]
    assert steps(output) == [*range(1, 10), *range(12, 17)]


def test_another_spike_than_may_be_passed_over_ends_the_run(recipe: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    faults = Fault("raised", 6, 8), Fault("raised", 13, 16)

    reason = run_faulty(recipe, Job(output, (*LOCAL, SPIKE)), *faults)

    assert reason is not None
    assert reason.endswith("after 1 such rises were passed over")
    assert events(output, "stopped")[0]["step"] == 15


def test_spike_before_the_first_checkpoint_is_told_once(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    settings = (*LOCAL, "train.guards.spike={window: 2, patience: 1}", "train.save_every=100")

    run_faulty(recipe, Job(output, settings), Fault("raised", 4, 5))

    assert capsys.readouterr().err.count("no checkpoint before that is kept") == 1
    assert steps(output) == list(range(1, 17))


# -- steps passed over by the recipe ---------------------------------------------------------------


def test_range_that_is_resumed_in_its_middle_is_passed_over_to_its_end(
    recipe: Path, tmp_path: Path
) -> None:
    run_faulty(recipe, Job(tmp_path / "whole", (*LOCAL, "train.skip=[[8, 11]]")))
    run_faulty(recipe, Job(tmp_path / "resumed", LOCAL, stop_at=9))
    run_faulty(recipe, Job(tmp_path / "resumed", (*LOCAL, "train.skip=[[6, 11]]")))

    assert_same(tmp_path / "whole", tmp_path / "resumed")
    assert steps(tmp_path / "whole") == [*range(1, 9), *range(12, 17)]
    seen = [record["fingerprint"] for record in records(tmp_path / "whole", "train")]
    assert seen == [record["fingerprint"] for record in records(tmp_path / "resumed", "train")]


def test_run_whose_last_steps_are_passed_over_ends_with_a_checkpoint(
    recipe: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    run_faulty(recipe, Job(output, (*LOCAL, "train.skip=[[6, 100]]")))

    assert steps(output) == list(range(1, 7))
    assert Checkpoints(output / "checkpoints").latest() == Checkpoints(output / "checkpoints").path(
        16
    )


# -- runs that lead nowhere ------------------------------------------------------------------------


def test_diverging_run_stops_at_the_same_step_after_a_resume(recipe: Path, tmp_path: Path) -> None:
    settings = (*LOCAL, "train.stop_if=[{kind: divergence, over: 4}]")
    rise = Fault("raised", 9)

    whole = run_faulty(recipe, Job(tmp_path / "whole", settings), rise)
    run_faulty(recipe, Job(tmp_path / "resumed", settings, stop_at=9))
    resumed = run_faulty(recipe, Job(tmp_path / "resumed", settings), rise)

    assert whole is not None
    assert whole.startswith("stopped after step 10: the loss diverges")
    assert resumed == whole
    assert events(tmp_path / "resumed", "stopped") == events(tmp_path / "whole", "stopped")
    checkpoints = Checkpoints(tmp_path / "whole" / "checkpoints")
    assert checkpoints.latest() == checkpoints.path(8)


# -- ranks -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that two ranks do in this file, in one start of processes."""
    root = tmp_path_factory.mktemp("pair")
    spawn(_work, 2, recipe, root)
    return root


def said(root: Path, what: str) -> str:
    """What the two ranks said, which must be the same."""
    first, second = [(root / f"{what}.{rank}").read_text() for rank in (0, 1)]
    assert first == second
    return first


def test_ranks_are_set_back_together(pair: Path) -> None:
    """At a ZeRO stage, into a running engine, where the rise comes from one rank alone."""
    assert_same(pair / "spiked", pair / "skip")


def test_ranks_stop_together(pair: Path) -> None:
    assert said(pair, "stopped").startswith("stopped after step 3: the loss is ")


def test_settings_and_versions_that_differ_are_named(pair: Path) -> None:
    lines = said(pair, "refused").splitlines()

    assert lines[0].startswith("the ranks do not agree")
    assert lines[1:] == [
        "  seed: 3 on rank 0, 4 on rank 1",
        "  train.gradient_clipping: 1.0 on rank 0, 0.5 on rank 1",
        '  version of torch: "2.0" on rank 0, "2.1" on rank 1',
    ]


def test_problem_of_one_rank_is_told_with_its_name(pair: Path) -> None:
    assert said(pair, "missing").startswith("rank 1: ")


def test_tokenizers_that_differ_are_named(pair: Path) -> None:
    lines = said(pair, "tokenizer").splitlines()

    assert lines[1:] == ['  digest of the tokenizer: "0" on rank 0, "1" on rank 1']


def test_tracking_that_cannot_start_ends_all_ranks(pair: Path) -> None:
    assert said(pair, "untracked").startswith("rank 0: tracking: Weights & Biases cannot be ")


def test_ranks_at_different_places_are_stopped(pair: Path) -> None:
    told = said(pair, "apart")

    assert told.startswith("the ranks are not at the same step and rate: ")
    assert "rank 0 at step 2, learning rate 0.003" in told
    assert "rank 1 at step 2, learning rate 0.006" in told


def _work(rank: int, recipe: Path, root: Path) -> None:
    _train_as_a_pair(rank, recipe, root)
    _disagree(rank, recipe, root)


def _train_as_a_pair(rank: int, recipe: Path, root: Path) -> None:
    settings = (*LOCAL[1:], "deepspeed.zero_stage=2")
    rule = "train.stop_if=[{kind: not_below, loss: 1.0, step: 3}]"
    rise = Fault("raised", 10, 13, rank=0)
    run_faulty(recipe, Job(root / "spiked", (*settings, SPIKE)), rise)
    run_faulty(recipe, Job(root / "skip", (*settings, "train.skip=[[8, 12]]")))
    reason = run_faulty(recipe, Job(root / "ended", (*settings, rule)))
    (root / f"stopped.{rank}").write_text(str(reason))


def _disagree(rank: int, recipe: Path, root: Path) -> None:
    """Other settings and versions, missing data, another tokenizer, another learning rate; and
    no Weights & Biases, which rank 0 alone asks for."""

    def refusal(what: str, kind: type[Exception], *overrides: str) -> None:
        run = decode_run(load(recipe, [f"output.directory={root}/{what}", *overrides]))
        with pytest.raises(kind) as refused:
            start.start_training(run)
        (root / f"{what}.{rank}").write_text(str(refused.value))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "versions", lambda: {"torch": f"2.{rank}"})
        refusal("refused", Agreed, *(["seed=4", "train.gradient_clipping=0.5"] if rank else []))
    refusal("missing", Agreed, *([f"corpus.directory={root}/nothing"] if rank else []))
    with pytest.MonkeyPatch.context() as patch:
        opened = start.open_data
        patch.setattr(start, "open_data", lambda run: replace(opened(run), tokenizer=str(rank)))
        refusal("tokenizer", Agreed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wandb.init", _unreachable)
        refusal("untracked", Agreed, "tracking.mode=offline")
    with pytest.MonkeyPatch.context() as patch:
        rate = Timeline.learning_rate
        patch.setattr(Timeline, "learning_rate", lambda self, step: (1 + rank) * rate(self, step))
        refusal("apart", TrainingStopped)


def _unreachable(**settings: object) -> NoReturn:
    import wandb

    raise wandb.errors.CommError("no route")
