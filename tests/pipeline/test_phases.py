"""Steps, batches, rows and rates of phases: closed forms against plain counting."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import ConfigError, load
from pipeline.optim.schedules import ConstantConfig, LinearConfig
from pipeline.phases import (
    BatchStageConfig,
    PhaseConfig,
    ScaledRateConfig,
    TaskConfig,
    TaskOrder,
    Timeline,
    stretches,
)
from pipeline.settings import decode_run
from preprocessing.draws import purpose_key
from preprocessing.order import Interleave

CONSTANT = ConstantConfig(kind="constant")
LAMB_TABLE = ScaledRateConfig(scaling="square_root", base=5e-3, at=32768)


def phase(steps: int, batch_rows: int, *warmup: tuple[int, int]) -> PhaseConfig:
    return PhaseConfig(
        examples="any",
        steps=steps,
        batch_rows=batch_rows,
        learning_rate=1e-3,
        batch_warmup=tuple(BatchStageConfig(batch_rows=rows, steps=n) for rows, n in warmup),
    )


def test_rows_of_a_batch_warmup_lie_one_behind_the_other() -> None:
    timeline = Timeline([phase(6, 24, (16, 3)), phase(2, 8)], CONSTANT)
    steps = range(9)
    batches = [timeline.stretch(step).batch_rows for step in steps]
    assert batches == [16, 16, 16, 24, 24, 24, 8, 8, 8]
    positions = [timeline.position(step) for step in steps]
    assert positions == [0, 16, 32, 48, 72, 96, 0, 8, 16]
    assert [timeline.place(step).phase for step in steps] == [0, 0, 0, 0, 0, 0, 1, 1, 1]


STAGES = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 9)), max_size=4)


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 9), STAGES), min_size=1, max_size=3))
def test_every_row_of_a_phase_is_in_one_step(
    drawn: list[tuple[int, int, list[tuple[int, int]]]],
) -> None:
    phases = [
        phase(sum(n for _, n in warmup) + more, rows, *warmup) for rows, more, warmup in drawn
    ]
    timeline = Timeline(phases, CONSTANT)
    step = 0
    for rows, more, warmup in drawn:
        batches = [batch for batch, steps in [*warmup, (rows, more)] for _ in range(steps)]
        for number, batch in enumerate(batches):
            stretch, within = timeline.stretch(step), timeline.place(step).step
            assert stretch.batch_rows == batch
            assert timeline.position(step) == stretch.position(within) == sum(batches[:number])
            assert stretch.first_step <= within < stretch.end_step
            step += 1
    assert step == timeline.total_steps
    assert timeline.position(step) == sum(batches)  # the end of the last phase


def test_lambs_published_rates_follow_from_the_batch() -> None:
    batches = [512, 1024, 2048, 4096, 8192, 16384, 32768]
    rates = [LAMB_TABLE.rate(batch) for batch in batches]
    expected = [6.25e-4, 8.84e-4, 1.25e-3, 1.768e-3, 2.5e-3, 3.536e-3, 5e-3]
    assert rates == pytest.approx(expected, rel=5e-4)
    assert rates == pytest.approx([5e-3 * 2 ** (i / 2 - 3) for i in range(7)])
    linear = ScaledRateConfig(scaling="linear", base=1e-4, at=256)
    assert linear.rate(1024) == pytest.approx(4e-4)


def test_a_phase_runs_at_the_rate_of_its_batch() -> None:
    table = PhaseConfig(examples="any", steps=10, batch_rows=8192, learning_rate=LAMB_TABLE)
    fixed = PhaseConfig(examples="any", steps=10, batch_rows=4096, learning_rate=1e-3)
    schedule = LinearConfig(kind="linear", warmup_steps=5, decay_from="warmup_end")
    timeline = Timeline([table, fixed], schedule)
    assert timeline.learning_rate(5) == pytest.approx(2.5e-3)
    assert timeline.learning_rate(10) == pytest.approx(1e-3 * 10 / 15)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("learning_rate: -1", "phases.0.learning_rate: Input should be greater than 0"),
        ("learning_rate: fast", "phases.0.learning_rate: Input should be a valid number"),
        (
            "learning_rate: {scaling: cube, base: 1, at: 2}",
            "phases.0.learning_rate.scaling: Input should be 'square_root' or 'linear'",
        ),
        (
            "learning_rate: {scaling: linear, base: 1, at: 2, bases: 3}",
            "phases.0.learning_rate.bases: unknown key; did you mean 'base'?",
        ),
        (
            "learning_rate: 1, batch_warmup: [{batch_rows: 4, steps: 10}]",
            "phases.0: batch_warmup takes 10 steps of 10",
        ),
        (
            "learning_rate: 1, batch_warmup: [{batch_rows: 0, steps: 7}]",
            "phases.0.batch_warmup.0.batch_rows: Input should be greater than or equal to 1",
        ),
    ],
)
def test_an_impossible_phase_is_told_by_its_key(tmp_path: Path, changed: str, message: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"phases:\n  - {{examples: any, steps: 10, batch_rows: 8, {changed}}}\n")
    with pytest.raises(ConfigError) as caught:
        load(recipe).decode("phases", tuple[PhaseConfig, ...])
    (problem,) = caught.value.problems
    assert message in problem


@pytest.mark.parametrize(
    ("batch", "rate", "share"),
    [
        (512, 0.625e-3, 320),
        (1024, 0.884e-3, 160),
        (2048, 1.25e-3, 80),
        (4096, 1.768e-3, 40),
        (8192, 2.5e-3, 20),
        (16384, 3.536e-3, 10),
        (32768, 5e-3, 5),
    ],
)
def test_the_recipe_of_lambs_table_gives_each_of_its_rows(
    batch: int, rate: float, share: int
) -> None:
    steps = 512_000_000 // batch
    short = steps * 9 // 10
    overrides = [f"phases.{phase}.batch_rows={batch}" for phase in (0, 1)]
    overrides += [f"phases.0.steps={short}", f"phases.1.steps={steps - short}"]
    run = decode_run(load("configs/pretrain/bert/large-lamb-table.yaml", overrides))
    assert run.total_steps == steps
    assert [phase.peak_rate for phase in run.phases] == pytest.approx([rate] * 2, rel=5e-4)
    assert isinstance(run.schedule, LinearConfig)
    assert run.schedule.warmup_steps * share == steps
    shown = Timeline(run.phases, run.schedule).learning_rate(3125)
    assert shown == pytest.approx(rate * (1 - 1 / share), rel=5e-4)


def test_the_shipped_recipe_of_lambs_table_is_its_last_row() -> None:
    run = decode_run(load("configs/pretrain/bert/large-lamb-table.yaml"))
    assert [(phase.steps, phase.batch_rows) for phase in run.phases] == [
        (14062, 32768),
        (1563, 32768),
    ]


def test_the_tiny_twin_grows_its_batch_and_may_be_told_not_to() -> None:
    recipe = "configs/pretrain/bert/large-lamb-table-tiny.yaml"
    run = decode_run(load(recipe))
    timeline = Timeline(run.phases, run.schedule)
    assert [timeline.stretch(s).batch_rows for s in (0, 99, 100, 200, 599)] == [16, 16, 32, 64, 64]
    overrides = ["phases.0.batch_warmup=[]", "phases.0.batch_rows=256", "phases.0.steps=119"]
    (changed,) = decode_run(load(recipe, overrides)).phases
    assert changed.peak_rate == pytest.approx(2e-2)
    assert timeline.position(600) == pytest.approx(119 * 256, rel=3e-3)


def test_a_stage_that_micro_batches_do_not_divide_is_refused() -> None:
    recipe = "configs/pretrain/bert/large-lamb-table-tiny.yaml"
    override = "phases.0.batch_warmup=[{batch_rows: 24, steps: 2}]"
    with pytest.raises(ConfigError, match=r"phases\.0\.batch_warmup\.0\.batch_rows: 24 is not a"):
        decode_run(load(recipe, [override]))


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_adafactor_is_refused_on_flat_tensors(stage: int) -> None:
    recipe = "configs/pretrain/bert/large-lamb-table-tiny.yaml"
    adafactor = ["optimizer={kind: adafactor}", f"deepspeed.zero_stage={stage}"]
    with pytest.raises(ConfigError, match=f"ZeRO stage {stage} hands it tensors without rows"):
        decode_run(load(recipe, adafactor))
    decode_run(load(recipe, [*adafactor, "deepspeed.zero_stage=0"]))
    decode_run(load(recipe, [*adafactor, "train.engine=local"]))


def test_tasks_of_steps_are_worked_by_hand() -> None:
    order = TaskOrder(
        Interleave((3, 3), purpose_key(0, "tasks", 8)), stretches(phase(6, 16, (8, 2)))
    )
    assert [order.task(step) for step in range(6)] == [0, 1, 1, 0, 1, 0]
    found = [order.find(position) for position in (0, 8, 16, 32, 48, 64)]
    assert found == [(0, 0), (1, 0), (1, 8), (0, 8), (1, 24), (0, 24)]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), STAGES, st.integers(0, 99))
def test_each_task_counts_its_own_rows(
    counts: list[int], warmup: list[tuple[int, int]], seed: int
) -> None:
    given_phase = phase(sum(steps for _, steps in warmup) + 20, 24, *warmup)
    timeline = Timeline([given_phase], CONSTANT)
    interleave = Interleave(tuple(counts), purpose_key(seed, "tasks", 0))
    order = TaskOrder(interleave, stretches(given_phase))
    rows = [0] * len(counts)
    steps = [0] * len(counts)
    for step in range(given_phase.steps):
        task, batch = order.task(step), timeline.stretch(step).batch_rows
        first = timeline.position(step)
        for position in {first, first + batch - 1}:
            assert order.find(position) == (task, rows[task] + position - first)
        rows[task] += batch
        steps[task] += 1
        if (step + 1) % sum(counts) == 0:
            assert steps == [(step + 1) // sum(counts) * count for count in counts]


@pytest.mark.parametrize(
    ("given_keys", "problem"),
    [
        ({}, "exactly one of examples, mixture and tasks"),
        ({"examples": "a", "mixture": {"a": 1.0}}, "exactly one of examples, mixture and tasks"),
        ({"examples": "a", "mixture_alpha": 0.5}, "mixture_alpha is for a mixture"),
        ({"mixture": {"a": 1.0}, "streams": True}, "streams are read from one examples set"),
    ],
)
def test_a_phase_reads_one_thing(given_keys: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        PhaseConfig(**given_keys, steps=1, batch_rows=1, learning_rate=1.0)


def test_sets_of_a_phase_are_in_the_order_of_their_keys() -> None:
    common = {"steps": 1, "batch_rows": 1, "learning_rate": 1.0}
    assert PhaseConfig(examples="a", **common).sets == ("a",)
    assert PhaseConfig(mixture={"b": 1.0, "a": 2.0}, **common).sets == ("a", "b")
    tasks = {
        "z": TaskConfig(examples="a", weight=1.0),
        "y": TaskConfig(examples="b", weight=1.0),
        "x": TaskConfig(examples="a", weight=1.0),
    }
    own = PhaseConfig(tasks=tasks, **common)
    assert own.sets == ("a", "b")
    assert [key for key, _ in own.named_sets()] == [
        "tasks.x.examples",
        "tasks.y.examples",
        "tasks.z.examples",
    ]
