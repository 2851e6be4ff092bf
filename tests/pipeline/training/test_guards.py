"""The rules on losses, by literal series."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import ConfigError, load
from pipeline.sections import (
    DivergenceRule,
    GuardsConfig,
    NotBelowRule,
    SpikeConfig,
    StopRule,
    TrainConfig,
)
from pipeline.training.guards import Guard, Spike, find_spike, not_below
from pipeline.training.skips import SKIPS_FILE, Skips, read_skips
from preprocessing.storage import InputError


def judged(guard: Guard, losses: list[float], first: int = 0) -> list[str | None]:
    """The verdict after each loss."""
    verdicts = []
    for step, loss in enumerate(losses, first):
        guard.see(step, loss)
        verdicts.append(guard.reason_to_stop())
    return verdicts


def guard_of(*rules: StopRule, spike: SpikeConfig | None = None) -> Guard:
    return Guard(rules, GuardsConfig(spike=spike), {})


def test_not_below_judges_the_mean_before_its_step_and_only_there() -> None:
    rule = NotBelowRule(kind="not_below", loss=7.0, step=4, over=2)

    assert judged(guard_of(rule), [9, 8, 7.5, 6.7, 9, 9]) == [
        None,
        None,
        None,
        "the loss is 7.1000 after 4 steps, not below 7",
        None,
        None,
    ]
    assert judged(guard_of(rule), [9, 8, 7.0, 6.9, 9, 9]) == [None] * 6


def test_not_below_judges_at_the_next_step_where_its_own_was_passed_over() -> None:
    rule = NotBelowRule(kind="not_below", loss=7.0, step=4, over=10)

    assert not_below(rule, [0, 1, 2], [9, 9, 9]) is None
    assert not_below(rule, [0, 1, 2, 6], [9, 9, 9, 9]) == (
        "the loss is 9.0000 after 7 steps, not below 7"
    )
    assert not_below(rule, [0, 1, 2, 6, 7], [9, 9, 9, 9, 9]) is None


def test_divergence_compares_with_the_lowest_mean() -> None:
    rule = DivergenceRule(kind="divergence", factor=1.5, over=2)

    assert judged(guard_of(rule), [4, 2, 2, 3, 4]) == [
        None,
        None,
        None,
        None,
        "the loss diverges: its mean over 2 steps is 3.5000 and was 2.0000, more than 1.5 times "
        "less",
    ]
    assert judged(guard_of(rule), [4, 2, 2, 3, 3, 3, 3]) == [None] * 7


def test_spike_is_patience_losses_in_a_row_above_the_median() -> None:
    settings = SpikeConfig(factor=2, window=3, patience=2)
    steps = [10, 11, 12, 13, 14]

    assert find_spike(settings, steps, [2, 3, 2, 5, 9]) == Spike(13, 15, (5, 9), 2)
    assert find_spike(settings, steps, [2, 3, 2, 9, 4]) is None
    assert find_spike(settings, steps[1:], [3, 2, 5, 9]) is None
    assert find_spike(settings, [10, 11, 12, 13, 20], [2, 3, 2, 5, 9]) == Spike(13, 21, (5, 9), 2)


def test_a_single_outlier_is_no_spike() -> None:
    guard = guard_of(spike=SpikeConfig(factor=2, window=3, patience=2))

    for step, loss in enumerate([2, 2, 2, 50, 2, 2, 60, 2]):
        guard.see(step, loss)
        assert guard.spike() is None


losses_and_cut = st.lists(st.floats(0.1, 20), min_size=2, max_size=60).flatmap(
    lambda losses: st.tuples(st.just(losses), st.integers(0, len(losses)))
)


@given(losses_and_cut)
def test_resumed_guard_judges_as_the_undisturbed_one(case: tuple[list[float], int]) -> None:
    losses, cut = case
    rules = (
        DivergenceRule(kind="divergence", factor=1.2, over=3),
        NotBelowRule(kind="not_below", loss=5, step=20, over=7),
    )
    settings = GuardsConfig(spike=SpikeConfig(window=5, patience=2))
    whole = Guard(rules, settings, {})
    verdicts = judged(whole, losses)
    before = Guard(rules, settings, {})
    judged(before, losses[:cut])

    resumed = Guard(rules, settings, json.loads(json.dumps(before.plain())))

    assert judged(resumed, losses[cut:], cut) == verdicts[cut:]
    assert resumed.spike() == whole.spike()
    assert resumed.plain() == whole.plain()


def test_steps_without_update_are_counted_and_too_many_in_a_row_are_told() -> None:
    guard = Guard((), GuardsConfig(max_skipped=2), {})

    assert [guard.failed(), guard.failed()] == [False, False]
    guard.applied()
    assert [guard.failed(), guard.failed(), guard.failed()] == [False, False, True]
    assert guard.skipped_steps == 5
    assert Guard((), GuardsConfig(max_skipped=2), guard.plain()).failed()


def test_steps_passed_over_are_a_function_of_the_step() -> None:
    skips = Skips([(2, 4), (9, 10)], [(3, 6)])

    assert [skips.end(step) for step in range(8)] == [None, None, 6, 6, 6, 6, None, None]
    assert [skips.next(step, 8) for step in (0, 6)] == [2, 8]
    assert skips.next(6, 20) == 9
    assert [skips.abandoned(step) for step in (3, 4, 5, 6)] == [False, True, True, False]


def test_recorded_ranges_come_from_file_and_checkpoint(tmp_path: Path) -> None:
    assert read_skips(tmp_path, [(4, 8)]) == ((4, 8),)
    (tmp_path / SKIPS_FILE).write_text("[[4, 8], [20, 24]]")
    assert read_skips(tmp_path, [(4, 8)]) == ((4, 8), (20, 24))
    (tmp_path / SKIPS_FILE).write_text("[[4, 8")
    with pytest.raises(InputError, match=r"skips.json: damaged"):
        read_skips(tmp_path, [])


@pytest.mark.parametrize("ranges", ["[[4, 4]]", "[[6, 2]]", "[[2, 6], [5, 8]]", "[[8, 9], [1, 2]]"])
def test_ranges_that_are_none_are_refused(ranges: str) -> None:
    from pipeline.settings import decode_run

    with pytest.raises(ConfigError, match=r"train.*skip takes ranges"):
        decode_run(load("quickstart.yaml", [f"train.skip={ranges}"]))


def test_touching_ranges_are_taken() -> None:
    config = TrainConfig(micro_batch_rows=1, skip=((2, 4), (4, 5)))

    assert Skips(config.skip).end(2) == 5
