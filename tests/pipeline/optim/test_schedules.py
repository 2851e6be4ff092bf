from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import ConfigError, load
from pipeline.optim.schedules import (
    ConstantConfig,
    CosineConfig,
    InverseSqrtConfig,
    LinearConfig,
    PolynomialConfig,
    ScheduleConfig,
    T5ScheduleConfig,
    build_schedule,
)


def test_linear_counts_its_decay_from_step_zero_as_bert_does() -> None:
    rate = build_schedule(LinearConfig(kind="linear", warmup_steps=10), peak=1.0, total_steps=100)
    steps = [0, 5, 9, 10, 55, 99, 100, 1000]
    expected = [0.0, 0.5, 0.9, 0.9, 0.45, 0.01, 0.0, 0.0]
    assert [rate(step) for step in steps] == pytest.approx(expected)


def test_bert_dips_by_the_warmup_share_when_the_warmup_ends() -> None:
    config = LinearConfig(kind="linear", warmup_steps=10_000)
    rate = build_schedule(config, peak=1e-4, total_steps=1_000_000)
    assert rate(9_999) == pytest.approx(0.9999e-4)
    assert rate(10_000) == pytest.approx(0.99e-4)


def test_linear_may_count_from_the_end_of_the_warmup() -> None:
    config = LinearConfig(kind="linear", warmup_steps=10, end_factor=0.1, decay_from="warmup_end")
    rate = build_schedule(config, peak=2.0, total_steps=110)
    assert [rate(step) for step in (9, 10, 60, 110, 111)] == pytest.approx([1.8, 2, 1.1, 0.2, 0.2])


def test_nvidias_root_falls_to_its_published_share_of_the_peak() -> None:
    config = PolynomialConfig(kind="polynomial", power=0.5, warmup_steps=2001)
    rate = build_schedule(config, peak=6e-3, total_steps=7038)
    assert rate(2000) == pytest.approx(6e-3 * 2000 / 2001)
    assert rate(2001) / 6e-3 == pytest.approx(0.846, abs=5e-4)
    assert rate(7037) == pytest.approx(6e-3 * (1 / 7038) ** 0.5)


def test_constant_stays_at_the_peak() -> None:
    rate = build_schedule(ConstantConfig(kind="constant", warmup_steps=4), 0.5, total_steps=10)
    assert [rate(step) for step in (0, 2, 4, 9, 99)] == [0.0, 0.25, 0.5, 0.5, 0.5]


def test_constant_cools_down_in_its_last_steps() -> None:
    steps = [0, 4, 83, 84, 88, 92, 96, 99, 100, 101]
    linear = ConstantConfig(kind="constant", warmup_steps=4, cooldown_steps=16)
    rate = build_schedule(linear, peak=1.0, total_steps=100)
    expected = [0.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0625, 0.0, 0.0]
    assert [rate(step) for step in steps] == pytest.approx(expected)
    root = ConstantConfig(kind="constant", cooldown_steps=16, cooldown="one_minus_sqrt")
    rate = build_schedule(root, peak=1.0, total_steps=100)
    expected = [1.0, 1.0, 1.0, 1.0, 0.5, 0.2929, 0.1340, 0.0318, 0.0, 0.0]
    assert [rate(step) for step in steps] == pytest.approx(expected, abs=5e-5)


def test_a_longer_training_with_cooldown_starts_alike() -> None:
    config = ConstantConfig(kind="constant", warmup_steps=5, cooldown_steps=20)
    short, long = (build_schedule(config, 0.1, total) for total in (100, 200))
    assert [short(step) for step in range(81)] == [long(step) for step in range(81)]
    assert short(81) < long(81)


def test_cosine_counts_from_step_zero_as_gpt_does_or_from_the_warmup() -> None:
    steps = [0, 5, 10, 25, 50, 75, 100, 101]
    rate = build_schedule(CosineConfig(kind="cosine", warmup_steps=10), 1.0, total_steps=100)
    expected = [0.0, 0.5, 0.9755, 0.8536, 0.5, 0.1464, 0.0, 0.0]
    assert [rate(step) for step in steps] == pytest.approx(expected, abs=5e-5)
    config = CosineConfig(kind="cosine", warmup_steps=10, decay_from="warmup_end")
    rate = build_schedule(config, 1.0, total_steps=100)
    expected = [0.0, 0.5, 1.0, 0.9330, 0.5868, 0.1786, 0.0, 0.0]
    assert [rate(step) for step in steps] == pytest.approx(expected, abs=5e-5)
    tenth = CosineConfig(kind="cosine", end_factor=0.1)
    assert build_schedule(tenth, 2.0, total_steps=100)(50) == pytest.approx(1.1)


def test_inverse_square_root_halves_with_every_fourfold_of_steps() -> None:
    config = InverseSqrtConfig(kind="inverse_sqrt", warmup_steps=4000)
    rate = build_schedule(config, peak=1.0, total_steps=100_000)
    steps = [0, 2000, 4000, 16_000, 64_000, 100_000, 200_000]
    assert [rate(step) for step in steps] == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.25, 0.2, 0.2])


def test_inverse_square_root_is_the_formula_of_the_transformer() -> None:
    config = InverseSqrtConfig(kind="inverse_sqrt", warmup_steps=4000)
    rate = build_schedule(config, peak=(512 * 4000) ** -0.5, total_steps=100_000)
    for step in (1, 1234, 4000, 99_999):
        assert rate(step) == pytest.approx(512**-0.5 * min(step**-0.5, step * 4000**-1.5))


def test_t5_holds_its_peak_and_is_the_formula_of_its_paper_at_a_hundredth() -> None:
    rate = build_schedule(T5ScheduleConfig(kind="t5"), peak=0.01, total_steps=1_000_000)
    steps = [0, 10_000, 40_000, 1_000_000]
    assert [rate(step) for step in steps] == pytest.approx([0.01, 0.01, 0.005, 0.001])
    for step in (0, 9_999, 10_001, 524_288):
        assert rate(step) == pytest.approx(max(step, 10_000) ** -0.5)


def schedules(draw: st.DrawFn) -> tuple[ScheduleConfig, int]:
    """Any schedule, and the length of a training that it fits."""
    total = draw(st.integers(2, 300))
    warmup = draw(st.integers(0, total - 1))
    decay = {
        "warmup_steps": warmup,
        "end_factor": draw(st.floats(0, 1)),
        "decay_from": draw(st.sampled_from(["start", "warmup_end"])),
    }
    cooldown = draw(st.integers(0, total - warmup))
    form = draw(st.sampled_from(["linear", "one_minus_sqrt"]))
    configs: list[ScheduleConfig] = [
        ConstantConfig(
            kind="constant", warmup_steps=warmup, cooldown_steps=cooldown, cooldown=form
        ),
        LinearConfig(kind="linear", **decay),
        PolynomialConfig(kind="polynomial", power=draw(st.floats(0.2, 4)), **decay),
        CosineConfig(kind="cosine", **decay),
        InverseSqrtConfig(kind="inverse_sqrt", warmup_steps=max(1, warmup)),
        T5ScheduleConfig(kind="t5", hold_steps=draw(st.integers(1, 2 * total))),
    ]
    return draw(st.sampled_from(configs)), total


@given(st.composite(schedules)(), st.floats(1e-6, 10))
def test_a_rate_rises_to_no_more_than_its_peak_and_falls_from_there(
    drawn: tuple[ScheduleConfig, int], peak: float
) -> None:
    config, total = drawn
    rate = build_schedule(config, peak, total)
    warmup = getattr(config, "warmup_steps", 0)
    rates = [rate(step) for step in range(total + 3)]
    assert all(0 <= value <= peak * (1 + 1e-12) for value in rates)
    assert rates[:warmup] == sorted(rates[:warmup])
    after = rates[warmup:]
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in pairwise(after))
    assert rates[-3:] == [rates[total]] * 3  # level after the end
    assert rate(total // 2) == rates[total // 2]  # a pure function of the step


@given(st.composite(schedules)())
def test_a_rate_meets_its_warmup_without_a_jump_unless_its_decay_began_before(
    drawn: tuple[ScheduleConfig, int],
) -> None:
    config, total = drawn
    warmup = getattr(config, "warmup_steps", 0)
    if not warmup or getattr(config, "decay_from", "warmup_end") == "start":
        return
    rate = build_schedule(config, 1.0, total)
    assert rate(warmup) == 1.0
    assert rate(warmup) - rate(warmup - 1) <= 1 / warmup + 1e-12


@pytest.mark.parametrize(
    "config",
    [
        ConstantConfig(kind="constant"),
        LinearConfig(kind="linear"),
        PolynomialConfig(kind="polynomial", power=2.0),
        CosineConfig(kind="cosine"),
        ConstantConfig(kind="constant", cooldown_steps=5),
        T5ScheduleConfig(kind="t5", hold_steps=2),
    ],
)
def test_without_warmup_the_first_step_has_the_peak_rate(config: ScheduleConfig) -> None:
    assert build_schedule(config, peak=0.3, total_steps=5)(0) == 0.3


def test_a_warmup_longer_than_the_training_is_refused() -> None:
    with pytest.raises(ValueError, match="shorten the warm-up"):
        build_schedule(LinearConfig(kind="linear", warmup_steps=5), peak=1.0, total_steps=5)


def test_a_cooldown_that_reaches_into_the_warmup_is_refused() -> None:
    config = ConstantConfig(kind="constant", warmup_steps=3, cooldown_steps=3)
    with pytest.raises(ValueError, match="cooldown_steps"):
        build_schedule(config, peak=1.0, total_steps=5)


def test_the_section_of_a_recipe_picks_its_kind(tmp_path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("schedule: {kind: polynomial, power: 0.5, warmup_steps: 3}\n")
    config = load(recipe).decode("schedule", ScheduleConfig)
    assert config == PolynomialConfig(kind="polynomial", power=0.5, warmup_steps=3)
    recipe.write_text("schedule: {kind: linear, warmup: 3}\n")
    with pytest.raises(ConfigError, match="warmup_steps"):
        load(recipe).decode("schedule", ScheduleConfig)
