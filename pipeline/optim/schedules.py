"""Learning rates as pure functions of the optimizer step, so that nothing of them needs saving.

Steps count from 0, the first optimizer step, and warm-up is measured in optimizer steps. All
schedules but T5's rise linearly from zero: ``peak * step / warmup_steps`` for
``step < warmup_steps``, as in google-research/bert. The very first step of a warm-up thus has rate
0 and only fills the moments; without warm-up the first step has the peak rate.

BERT's decay, NVIDIA's for LAMB and GPT-1's cosine are counted from step 0, not from the end of the
warm-up. With 10 warm-up steps of 100 and a peak of 1 the linear rate is

    step   0    5    9    10   55    99    100
    rate   0.0  0.5  0.9  0.9  0.45  0.01  0.0

It never reaches the peak. ``decay_from: warmup_end`` starts the decay at the peak, as fairseq and
transformers do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal, TypeAlias, assert_never

import pydantic

from configs.schema import config, setting

Steps: TypeAlias = Annotated[int, pydantic.Field(ge=0)]
SomeSteps: TypeAlias = Annotated[int, pydantic.Field(ge=1)]
Share: TypeAlias = Annotated[float, pydantic.Field(ge=0, le=1)]
DecayFrom: TypeAlias = Literal["start", "warmup_end"]


@config
class ConstantConfig:
    """The peak rate after the warm-up, and down to zero in the last ``cooldown_steps``.

    With ``left``, the share of the cooldown that is left, the rate falls as ``peak * left``
    (``linear``) or as ``peak * (1 - sqrt(1 - left))`` (``one_minus_sqrt``: Haegele et al. 2024,
    https://arxiv.org/abs/2405.18392). The last 16 of 100 steps, at a peak of 1:

        step             84   88    92      96    100
        linear           1.0  0.75  0.5     0.25  0.0
        one_minus_sqrt   1.0  0.5   0.2929  0.134 0.0

    A run can be prolonged from a checkpoint before its cooldown: nothing earlier depends on the
    length of the training.
    """

    kind: Literal["constant"]
    warmup_steps: Steps = setting(0, resume="recorded")
    cooldown_steps: Steps = setting(0, resume="recorded")
    cooldown: Literal["linear", "one_minus_sqrt"] = setting("linear", resume="recorded")


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


@config
class CosineConfig:
    """Down to ``end_factor`` of the peak along half a cosine.

    ``end + (peak - end) * (1 + cos(pi * step / total)) / 2``, counted from step 0 as in GPT-1's
    ``opt.py``. With 10 warm-up steps of 100 and a peak of 1:

        step        0    5    10      25      50   75      100
        start       0.0  0.5  0.9755  0.8536  0.5  0.1464  0.0
        warmup_end  0.0  0.5  1.0     0.9330  0.5868  0.1786  0.0
    """

    kind: Literal["cosine"]
    warmup_steps: Steps = setting(0, resume="recorded")
    end_factor: Share = setting(0.0, resume="recorded")
    decay_from: DecayFrom = setting("start", resume="recorded")


@config
class InverseSqrtConfig:
    """``peak * sqrt(warmup_steps / step)`` after the warm-up, whatever the length of the training.

    Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 5.3, whose factor
    ``hidden_size^-0.5`` makes a peak of ``(hidden_size * warmup_steps)^-0.5``. With 4000 warm-up
    steps and a peak of 1:

        step   0    2000  4000  16000  100000
        rate   0.0  0.5   1.0   0.5    0.2
    """

    kind: Literal["inverse_sqrt"]
    warmup_steps: SomeSteps = setting(resume="recorded")


@config
class T5ScheduleConfig:
    """T5's inverse square root: no rise, the peak for ``hold_steps``, then as ``1 / sqrt(step)``.

    Raffel et al. 2019, https://arxiv.org/abs/1910.10683, section 3.1.2, give the rate itself:
    ``1 / sqrt(max(step, hold_steps))`` with 10,000 steps. Here it is
    ``peak / sqrt(max(step, hold_steps) / hold_steps)``, which is theirs at the peak of
    ``1 / sqrt(hold_steps)``: a ``learning_rate`` of 0.01.

        step   0     10000  40000  1000000
        rate   0.01  0.01   0.005  0.001
    """

    kind: Literal["t5"]
    hold_steps: SomeSteps = setting(10_000, resume="recorded")


ScheduleConfig: TypeAlias = Annotated[
    ConstantConfig
    | LinearConfig
    | PolynomialConfig
    | CosineConfig
    | InverseSqrtConfig
    | T5ScheduleConfig,
    pydantic.Field(discriminator="kind"),
]
"""The ``schedule`` section of a recipe."""

Schedule: TypeAlias = Callable[[int], float]
"""Learning rate of an optimizer step, counted from 0."""

Shape: TypeAlias = Callable[[float], float]
"""Share of the way from the end rate to the peak, of the share of steps that are left."""


def build_schedule(config: ScheduleConfig, peak: float, total_steps: int) -> Schedule:
    """The schedule of a training of ``total_steps`` optimizer steps; it is level after them.

    Args:
        config: its form.
        peak: the rate that the shares are taken of.
        total_steps: optimizer steps.

    Raises:
        ValueError: the warm-up would not end before the training does, or reach its cooldown.
    """
    match config:
        case ConstantConfig():
            after = _cooled(config, total_steps)
        case LinearConfig():
            after = _decayed(config, total_steps, lambda left: left)
        case PolynomialConfig():
            power = config.power
            after = _decayed(config, total_steps, lambda left: float(left**power))
        case CosineConfig():
            after = _decayed(config, total_steps, lambda left: (1 - math.cos(math.pi * left)) / 2)
        case InverseSqrtConfig():
            after = _inverse_sqrt(config.warmup_steps)
        case T5ScheduleConfig():
            held = _inverse_sqrt(config.hold_steps)
            return lambda step: peak * held(min(step, total_steps))
        case _:
            assert_never(config)
    warmup_steps = config.warmup_steps
    if warmup_steps >= max(total_steps, 1):
        raise ValueError(
            f"warmup_steps ({warmup_steps}) must be below the {total_steps} steps of the "
            "training; shorten the warm-up or train longer"
        )

    def rate(step: int) -> float:
        assert step >= 0, step
        return peak * (
            step / warmup_steps if step < warmup_steps else after(min(step, total_steps))
        )

    return rate


def _decayed(
    config: LinearConfig | PolynomialConfig | CosineConfig, total_steps: int, shape: Shape
) -> Schedule:
    first = 0 if config.decay_from == "start" else config.warmup_steps
    end = config.end_factor
    return lambda step: end + (1 - end) * shape((total_steps - step) / (total_steps - first))


def _cooled(config: ConstantConfig, total_steps: int) -> Schedule:
    steps = config.cooldown_steps
    if steps and config.warmup_steps + steps > total_steps:
        raise ValueError(
            f"warmup_steps ({config.warmup_steps}) and cooldown_steps ({steps}) are more than the "
            f"{total_steps} steps of the training; shorten one of them or train longer"
        )

    def share(step: int) -> float:
        if total_steps - step >= steps:
            return 1.0
        left = (total_steps - step) / steps
        return left if config.cooldown == "linear" else 1 - math.sqrt(1 - left)

    return share


def _inverse_sqrt(level_until: int) -> Schedule:
    return lambda step: math.sqrt(level_until / max(step, level_until))
