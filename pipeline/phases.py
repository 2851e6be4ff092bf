"""Which phase a step belongs to, and what its rate is: closed forms of the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import pydantic

from configs.schema import config, setting
from pipeline.optim.schedules import ScheduleConfig, build_schedule
from preprocessing.settings import Name

Positive = Annotated[int, pydantic.Field(ge=1)]


@config
class PhaseConfig:
    """A stretch of training with data, batch and rates of its own.

    Attributes:
        examples: the examples set it reads.
        steps: optimizer steps.
        batch_rows: rows in a global batch, on any number of ranks.
        learning_rate: the peak.
        schedule: restarts with the phase; without it the run's ``schedule`` goes on.
    """

    examples: Name
    steps: Positive = setting(resume="recorded")
    batch_rows: Positive
    learning_rate: Annotated[float, pydantic.Field(gt=0)] = setting(resume="recorded")
    schedule: ScheduleConfig | None = setting(None, resume="recorded")


@dataclass(frozen=True)
class Place:
    """Where a step lies: its phase, and its number within the phase."""

    phase: int
    step: int


class Timeline:
    """The phases of a run laid end to end.

    Learning rates: a phase with a schedule of its own runs it from its own first step over its
    own length; the others share the run's schedule, which spans them all, each at its own peak.
    """

    def __init__(self, phases: Sequence[PhaseConfig], schedule: ScheduleConfig) -> None:
        self._starts = [0]
        for phase in phases:
            self._starts.append(self._starts[-1] + phase.steps)
        self._rates: list[tuple[Callable[[int], float], int]] = []
        for index, phase in enumerate(phases):
            own = phase.schedule is not None
            total = phase.steps if own else self._starts[-1]
            rate = build_schedule(phase.schedule or schedule, phase.learning_rate, total)
            self._rates.append((rate, self._starts[index] if own else 0))

    @property
    def total_steps(self) -> int:
        """Steps of all phases."""
        return self._starts[-1]

    def place(self, step: int) -> Place:
        """The phase of a step; the end of the run counts to the last phase."""
        for phase in range(len(self._starts) - 1):
            if step < self._starts[phase + 1]:
                return Place(phase, step - self._starts[phase])
        last = len(self._starts) - 2
        return Place(last, step - self._starts[last])

    def learning_rate(self, step: int) -> float:
        """The rate of a step (counted from 0)."""
        rate, start = self._rates[self.place(step).phase]
        return rate(step - start)
