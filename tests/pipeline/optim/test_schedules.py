import pytest

from configs.schema import ConfigError, load
from pipeline.optim.schedules import (
    ConstantConfig,
    LinearConfig,
    PolynomialConfig,
    ScheduleConfig,
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


@pytest.mark.parametrize(
    "config",
    [
        ConstantConfig(kind="constant"),
        LinearConfig(kind="linear"),
        PolynomialConfig(kind="polynomial", power=2.0),
    ],
)
def test_without_warmup_the_first_step_has_the_peak_rate(config: ScheduleConfig) -> None:
    assert build_schedule(config, peak=0.3, total_steps=5)(0) == 0.3


def test_a_warmup_longer_than_the_training_is_refused() -> None:
    with pytest.raises(ValueError, match="shorten the warm-up"):
        build_schedule(LinearConfig(kind="linear", warmup_steps=5), peak=1.0, total_steps=5)


def test_the_section_of_a_recipe_picks_its_kind(tmp_path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("schedule: {kind: polynomial, power: 0.5, warmup_steps: 3}\n")
    config = load(recipe).decode("schedule", ScheduleConfig)
    assert config == PolynomialConfig(kind="polynomial", power=0.5, warmup_steps=3)
    recipe.write_text("schedule: {kind: linear, warmup: 3}\n")
    with pytest.raises(ConfigError, match="warmup_steps"):
        load(recipe).decode("schedule", ScheduleConfig)
