"""Learning rates as pure functions of the optimizer step, so that nothing of them needs saving.

Steps count from 0, the first optimizer step, and warm-up is measured in optimizer steps. All three
schedules rise linearly from zero: ``peak * step / warmup_steps`` for ``step < warmup_steps``, as in
google-research/bert. The very first step of a warm-up thus has rate 0 and only fills the moments;
without warm-up the first step has the peak rate.

BERT's decay (and NVIDIA's, for LAMB) is counted from step 0, not from the end of the warm-up. With
10 warm-up steps of 100 and a peak of 1 the rate is

    step   0    5    9    10   55    99    100
    rate   0.0  0.5  0.9  0.9  0.45  0.01  0.0

It never reaches the peak. ``decay_from: warmup_end`` starts the decay at the peak, as fairseq and
transformers do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, TypeAlias, assert_never

import pydantic

from configs.schema import config, setting

Steps: TypeAlias = Annotated[int, pydantic.Field(ge=0)]
Share: TypeAlias = Annotated[float, pydantic.Field(ge=0, le=1)]
DecayFrom: TypeAlias = Literal["start", "warmup_end"]


@config
class ConstantConfig:
    """The peak rate after the warm-up."""

    kind: Literal["constant"]
    warmup_steps: Steps = setting(0, resume="recorded")


@config
class LinearConfig:
    """Down to ``end_factor`` of the peak on a straight line."""

    kind: Literal["linear"]
    warmup_steps: Steps = setting(0, resume="recorded")
    end_factor: Share = setting(0.0, resume="recorded")
    decay_from: DecayFrom = setting("start", resume="recorded")


@config
class PolynomialConfig:
    """Down to ``end_factor`` of the peak by a power of the share of steps left.

    ``end + (peak - end) * (1 - step / total)^power``; NVIDIA trains BERT by LAMB with 0.5.
    """

    kind: Literal["polynomial"]
    power: Annotated[float, pydantic.Field(gt=0)] = setting(resume="recorded")
    warmup_steps: Steps = setting(0, resume="recorded")
    end_factor: Share = setting(0.0, resume="recorded")
    decay_from: DecayFrom = setting("start", resume="recorded")


ScheduleConfig: TypeAlias = Annotated[
    ConstantConfig | LinearConfig | PolynomialConfig, pydantic.Field(discriminator="kind")
]
"""The ``schedule`` section of a recipe."""

Schedule: TypeAlias = Callable[[int], float]
"""Learning rate of an optimizer step, counted from 0."""


def build_schedule(config: ScheduleConfig, peak: float, total_steps: int) -> Schedule:
    """The schedule of a training of ``total_steps`` optimizer steps; it is level after them.

    Args:
        config: its form.
        peak: the rate that the shares are taken of.
        total_steps: optimizer steps.

    Raises:
        ValueError: the warm-up would not end before the training does.
    """
    if config.warmup_steps >= max(total_steps, 1):
        raise ValueError(
            f"warmup_steps ({config.warmup_steps}) must be below the {total_steps} steps of the "
            "training; shorten the warm-up or train longer"
        )
    match config:
        case ConstantConfig():
            return _after_warmup(config.warmup_steps, peak, lambda step: peak)
        case LinearConfig():
            power = 1.0
        case PolynomialConfig():
            power = config.power
        case _:
            assert_never(config)
    first = 0 if config.decay_from == "start" else config.warmup_steps
    end = config.end_factor * peak

    def decayed(step: int) -> float:
        left = max(total_steps - step, 0) / (total_steps - first)
        return float(end + (peak - end) * left**power)

    return _after_warmup(config.warmup_steps, peak, decayed)


def _after_warmup(warmup_steps: int, peak: float, schedule: Schedule) -> Schedule:
    def rate(step: int) -> float:
        assert step >= 0, step
        return peak * step / warmup_steps if step < warmup_steps else schedule(step)

    return rate
