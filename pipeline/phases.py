"""Which phase a step belongs to, and its batch, rows and rate: closed forms of the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import numpy as np
import pydantic

from configs.schema import config, setting
from pipeline.optim.schedules import ScheduleConfig, build_schedule
from preprocessing.order import BLOCK, Interleave
from preprocessing.settings import Name

Positive = Annotated[int, pydantic.Field(ge=1)]
Rate: TypeAlias = Annotated[float, pydantic.Field(gt=0)]
Weight: TypeAlias = Annotated[float, pydantic.Field(gt=0)]


@config
class ScaledRateConfig:
    """A peak rate that follows the batch.

    ``base`` at ``at`` rows; elsewhere times the root of ``batch_rows / at`` (``square_root``: what
    LAMB was published with), or the ratio itself (``linear``). LAMB's table (You et al. 2019,
    https://arxiv.org/abs/1904.00962) is ``{scaling: square_root, base: 5e-3, at: 32768}``:

        batch   512      1024     2048     4096     8192    16384    32768
        rate    6.25e-4  8.84e-4  1.25e-3  1.77e-3  2.5e-3  3.54e-3  5e-3
    """

    scaling: Literal["square_root", "linear"]
    base: Rate
    at: Positive

    def rate(self, batch_rows: int) -> float:
        """The peak rate of a batch."""
        power = 0.5 if self.scaling == "square_root" else 1.0
        return float(self.base * (batch_rows / self.at) ** power)


def _form_of_rate(value: object) -> str:
    return "ScaledRateConfig" if isinstance(value, (dict, ScaledRateConfig)) else "float"


PeakRate: TypeAlias = Annotated[
    Annotated[Rate, pydantic.Tag("float")]
    | Annotated[ScaledRateConfig, pydantic.Tag("ScaledRateConfig")],
    pydantic.Discriminator(_form_of_rate),
]
"""A number, or a rule; told apart by their form, so that errors speak of the one that was meant."""


@config
class BatchStageConfig:
    """Steps at the beginning of a phase with a batch of their own."""

    batch_rows: Positive
    steps: Positive


@config
class TaskConfig:
    """What some of the steps of a phase train.

    Attributes:
        examples: the examples set they read.
        weight: their share of the steps, beside the other tasks' weights.
        objectives: what they train; left out, everything that the examples have targets for.
    """

    examples: Name
    weight: Weight
    objectives: Annotated[tuple[str, ...], pydantic.Field(min_length=1)] | None = None


@config
class PhaseConfig:
    """A stretch of training with data, batch and rates of its own.

    It reads one examples set, a mixture of several row by row, or one task a step:

        examples: wiki-128
        mixture: {wiki-128: 3, books-128: 1}
        tasks: {both-ways: {examples: bert, weight: 2}, left-to-right: {examples: gpt, weight: 1}}

    Attributes:
        examples: the examples set it reads.
        mixture: examples sets and their shares of the tokens.
        mixture_alpha: the shares are weights times the sets' sizes in tokens to this power: 0
            leaves the weights alone, 1 makes them relative to the sizes, and what lies between
            is a temperature of 1 / alpha.
        tasks: what is drawn for each step, by a name of its own.
        block: rows of a mixture, or steps of tasks, in which each has exactly its share.
        steps: optimizer steps, those of ``batch_warmup`` included.
        batch_rows: rows in a global batch, on any number of ranks.
        learning_rate: the peak, or the rule it follows from ``batch_rows`` by.
        batch_warmup: other batches that come first, one after the other.
        schedule: restarts with the phase; without it the run's ``schedule`` goes on.
        shuffle_window: shuffle record batches, and then the rows of so many of them at a time: for
            examples in an object store, of which as much is then needed at a time. Left out, all
            rows of an epoch are shuffled among each other.
        streams: read the rows as ``batch_rows`` streams, side by side from batch to batch, for a
            model that carries memory; else they are shuffled.
    """

    examples: Name | None = None
    mixture: Annotated[Mapping[Name, Weight], pydantic.Field(min_length=1)] | None = setting(
        None, added=True
    )
    mixture_alpha: Annotated[float, pydantic.Field(ge=0, le=1)] = setting(0.0, added=True)
    tasks: Annotated[Mapping[Name, TaskConfig], pydantic.Field(min_length=1)] | None = setting(
        None, added=True
    )
    block: Annotated[int, pydantic.Field(ge=1, le=2**20)] = setting(BLOCK, added=True)
    steps: Positive = setting(resume="recorded")
    batch_rows: Positive
    learning_rate: PeakRate = setting(resume="recorded")
    batch_warmup: tuple[BatchStageConfig, ...] = ()
    schedule: ScheduleConfig | None = setting(None, resume="recorded")
    shuffle_window: Positive | None = setting(None, added=True)
    streams: bool = setting(False, added=True)

    def __post_init__(self) -> None:
        given = [self.examples, self.mixture, self.tasks]
        if sum(one is not None for one in given) != 1:
            raise ValueError("give exactly one of examples, mixture and tasks")
        if self.mixture_alpha and self.mixture is None:
            raise ValueError("mixture_alpha is for a mixture")
        if self.streams and self.examples is None:
            raise ValueError("streams are read from one examples set; give examples")
        if self.streams and self.shuffle_window:
            raise ValueError("streams are not shuffled; leave out shuffle_window")
        warmup = sum(stage.steps for stage in self.batch_warmup)
        if warmup >= self.steps:
            raise ValueError(
                f"batch_warmup takes {warmup} steps of {self.steps}, so that batch_rows is never "
                "reached; shorten it or raise steps"
            )
        if self.streams and self.batch_warmup:
            raise ValueError("each row of a batch is a stream: with streams, give no batch_warmup")

    @property
    def sets(self) -> tuple[Name, ...]:
        """The examples sets it reads, each once."""
        return tuple(dict.fromkeys(name for _, name in self.named_sets()))

    def named_sets(self) -> list[tuple[str, Name]]:
        """The key of each examples set that is named, and the set, in the order of the keys."""
        if self.mixture is not None:
            return [(f"mixture.{name}", name) for name in sorted(self.mixture)]
        tasks = sorted((self.tasks or {}).items())
        own = [("examples", self.examples)] if self.examples is not None else []
        return [*own, *((f"tasks.{name}.examples", task.examples) for name, task in tasks)]

    @property
    def largest_batch(self) -> int:
        """The most rows that a step takes."""
        return max([self.batch_rows, *(stage.batch_rows for stage in self.batch_warmup)])

    @property
    def peak_rate(self) -> float:
        """The peak learning rate."""
        given = self.learning_rate
        return given.rate(self.batch_rows) if isinstance(given, ScaledRateConfig) else given


@dataclass(frozen=True)
class Stretch:
    """Steps of one phase with the same batch.

    Attributes:
        first_step, end_step: within the phase, the end excluded.
        batch_rows: rows in a global batch.
        first_position: within the phase, of the first row of the first step.
    """

    first_step: int
    end_step: int
    batch_rows: int
    first_position: int

    def position(self, step: int) -> int:
        """The first row of a step of the stretch, or of the one after it."""
        assert self.first_step <= step <= self.end_step, (step, self)
        return self.first_position + (step - self.first_step) * self.batch_rows


@dataclass(frozen=True)
class Place:
    """Where a step lies: its phase, and its number within the phase."""

    phase: int
    step: int


@dataclass(frozen=True)
class TaskOrder:
    """Which task each step of a phase trains, and how many rows it has had until then.

    The tasks of a block of steps are counted out exactly; each task counts its own rows from 0.
    With two tasks of equal weight in blocks of 6 steps (key purpose_key(0, "tasks", 8)), 8 rows in
    the first two steps and 16 in the others:

        step       0   1   2   3   4   5
        task       0   1   1   0   1   0
        batch      8   8   16  16  16  16
        position   0   0   8   8   24  24

    Attributes:
        steps: the order of the tasks.
        stretches: of the phase.
    """

    steps: Interleave
    stretches: tuple[Stretch, ...]

    def task(self, step: int) -> int:
        """The task of a step of the phase."""
        return int(self.steps.locate(np.array([step]))[0][0])

    def find(self, position: int) -> tuple[int, int]:
        """The task at a position of the phase, and the position within the task."""
        last = max(
            index for index, one in enumerate(self.stretches) if one.first_position <= position
        )
        stretch = self.stretches[last]
        steps, rest = divmod(position - stretch.first_position, stretch.batch_rows)
        task = self.task(stretch.first_step + steps)
        ends = [*(one.end_step for one in self.stretches[:last]), stretch.first_step + steps]
        own = sum(
            one.batch_rows * (self.steps.count(task, end) - self.steps.count(task, one.first_step))
            for one, end in zip(self.stretches, ends, strict=False)
        )
        return task, own + rest


class Timeline:
    """The phases of a run laid end to end.

    Learning rates: a phase with a schedule of its own runs it from its own first step over its
    own length; the others share the run's schedule, which spans them all, each at its own peak.

    Rows: each phase counts its own from 0. With 16 rows in the first 3 steps and 24 in the others,

        step       0   1   2   3   4   5
        batch      16  16  16  24  24  24
        position   0   16  32  48  72  96
    """

    def __init__(self, phases: Sequence[PhaseConfig], schedule: ScheduleConfig) -> None:
        self._starts = [0]
        for phase in phases:
            self._starts.append(self._starts[-1] + phase.steps)
        self._stretches = [stretches(phase) for phase in phases]
        self._rates: list[tuple[Callable[[int], float], int]] = []
        for index, phase in enumerate(phases):
            own = phase.schedule is not None
            total = phase.steps if own else self._starts[-1]
            rate = build_schedule(phase.schedule or schedule, phase.peak_rate, total)
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

    def stretch(self, step: int) -> Stretch:
        """The stretch of a step; the end of the run counts to the last one."""
        place = self.place(step)
        stretches = self._stretches[place.phase]
        return next((one for one in stretches if place.step < one.end_step), stretches[-1])

    def position(self, step: int) -> int:
        """The first row of a step, counted within its phase."""
        return self.stretch(step).position(self.place(step).step)

    def learning_rate(self, step: int) -> float:
        """The rate of a step (counted from 0)."""
        rate, start = self._rates[self.place(step).phase]
        return rate(step - start)


def stretches(phase: PhaseConfig) -> tuple[Stretch, ...]:
    """The stretches of a phase, one behind the other in steps and rows."""
    return tuple(_stretches(phase))


def _stretches(phase: PhaseConfig) -> Iterator[Stretch]:
    step = position = 0
    for stage in phase.batch_warmup:
        yield Stretch(step, step + stage.steps, stage.batch_rows, position)
        step += stage.steps
        position += stage.steps * stage.batch_rows
    yield Stretch(step, phase.steps, phase.batch_rows, position)
