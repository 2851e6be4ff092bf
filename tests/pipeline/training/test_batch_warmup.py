"""A batch that grows within a phase: each row once, on any engine and ranks, stopped anywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_run import TOTAL_STEPS, Job, largest_difference, prepare, records, run_jobs, weights

from pipeline.data import Deal
from pipeline.optim.schedules import ConstantConfig
from pipeline.phases import BatchStageConfig, PhaseConfig, Timeline

WARMUP = "phases.0.batch_warmup=[{batch_rows: 8, steps: 3}, {batch_rows: 16, steps: 4}]"
"""1, 2 and 3 micro-batches a step: on one rank another number of rounds each, on two 1, 1, 2."""

BATCHES = [8] * 3 + [16] * 4 + [24] * 5 + [16] * 8
BOUND = 1e-5
"""Relative difference of a tensor; measured: at most 4e-7 after 20 steps."""


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_row_is_dealt_once_whatever_the_batch(world_size: int) -> None:
    stages = (BatchStageConfig(batch_rows=8, steps=3), BatchStageConfig(batch_rows=16, steps=4))
    phase = PhaseConfig(
        examples="any", steps=12, batch_rows=24, learning_rate=1.0, batch_warmup=stages
    )
    timeline = Timeline([phase], ConstantConfig(kind="constant"))
    dealt: list[int] = []
    for step in range(12):
        for rank in range(world_size):
            deal = Deal(
                first_position=timeline.position(step),
                steps=1,
                batch_rows=timeline.stretch(step).batch_rows,
                micro_batch_rows=8,
                rank=rank,
                world_size=world_size,
            )
            work = list(deal)
            assert len(work) == deal.rounds == -(-BATCHES[step] // 8 // world_size)
            dealt += [row for item in work if item.counts for row in item.positions]
    assert sorted(dealt) == list(range(sum(BATCHES[:12])))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run is stopped in the second stage, at its end and in what follows, and changes ranks."""
    root = tmp_path_factory.mktemp("warmup")
    recipe = prepare(root)

    def job(name: str, save_every: int, *overrides: str, stop_at: int | None = None) -> Job:
        return Job(root / name, (WARMUP, f"train.save_every={save_every}", *overrides), stop_at)

    run_jobs(
        recipe,
        [job("two", 20), job("moved", 5, stop_at=5), job("moved", 7, stop_at=7)],
        ranks=2,
    )
    every = ("train.engine=local", "train.keep_checkpoints=20")
    run_jobs(
        recipe,
        [job("local", 1, *every), job("one", 20), job("moved", 10, stop_at=10), job("moved", 20)],
        ranks=1,
    )
    return root


@pytest.mark.parametrize("name", ["one", "two", "moved"])
def test_rows_and_weights_are_those_of_the_local_engine(runs: Path, name: str) -> None:
    seen = [record["fingerprint"] for record in records(runs / name, "train")]
    reference = [record["fingerprint"] for record in records(runs / "local", "train")]
    assert len(set(reference)) == TOTAL_STEPS
    assert seen == reference
    assert largest_difference(weights(runs / name), weights(runs / "local")) <= BOUND


def test_the_stopped_run_was_resumed_where_it_was_stopped(runs: Path) -> None:
    events = [record for record in records(runs / "moved", "event") if record["event"] == "resume"]
    assert [(event["step"], event["ranks"]) for event in events] == [(5, 2), (7, 1), (10, 1)]


def test_checkpoints_tell_the_position_of_the_next_step(runs: Path) -> None:
    told = {}
    for path in (runs / "local" / "checkpoints").glob("step-*/state.json"):
        state = json.loads(path.read_text())
        told[state["step"]] = (state["phase"], state["position"])
    expected = {step: (0, sum(BATCHES[:step])) for step in range(1, 12)}
    expected |= {step: (1, sum(BATCHES[12:step])) for step in range(12, TOTAL_STEPS + 1)}
    assert told == expected


def test_each_change_of_the_batch_is_told(runs: Path) -> None:
    events = [record for record in records(runs / "two", "event") if record["event"] == "phase"]
    assert [(e["step"], e["phase"], e["batch_rows"]) for e in events] == [
        (0, 0, 8),
        (3, 0, 16),
        (7, 0, 24),
        (12, 1, 16),
    ]
