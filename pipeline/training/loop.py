"""The loop: positions in, checkpoints and records out. It knows no family and no engine.

Everything a step does follows from its number: which rows (closed form), which draws (keyed),
which dropout (the generator is seeded anew from seed, step and micro-batch). So nothing but the
step needs to be saved, and any number of ranks does the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.data import Data, Deal, MicroBatch, RowSource, count_targets, load, to_batch
from pipeline.optim import Lamb
from pipeline.phases import Timeline
from pipeline.settings import Run
from pipeline.training.engine import Engine
from pipeline.training.progress import Progress
from pipeline.training.saving import Saver
from pipeline.training.tracking import Tracker
from preprocessing.draws import purpose_key


class Trainer:
    """One training, from a step to the end."""

    def __init__(
        self,
        run: Run,
        engine: Engine,
        data: Data,
        saver: Saver,
        tracker: Tracker | None,
    ) -> None:
        self._run = run
        self._engine = engine
        self._data = data
        self._saver = saver
        self._tracker = tracker
        self._timeline = Timeline(run.phases, run.schedule)
        self._names = engine.task.objective_names
        self._progress = Progress(self._timeline.total_steps)

    def train(self, first_step: int) -> None:
        """Run all steps from ``first_step`` on, evaluating and saving on the way."""
        settings, last = self._run.train, self._timeline.total_steps
        step = first_step
        while step < last:
            place = self._timeline.place(step)
            steps = self._run.phases[place.phase].steps - place.step
            self._event(step, "phase", phase=place.phase)
            for batches in self._batches(place.phase, place.step, steps):
                started = time.perf_counter()
                measured = self.step(step, batches)
                step += 1
                if step % settings.log_every == 0 or step == last:
                    self._log(step, measured, time.perf_counter() - started)
                if step % settings.evaluate_every == 0 or step == last:
                    self._validate(step)
                if step % settings.save_every == 0 or step == last:
                    self._save(step)

    def step(self, step: int, batches: list[MicroBatch]) -> StepMeasures:
        """One optimizer step on this rank's micro-batches."""
        engine = self._engine
        counts = engine.sum(count_targets(batches, self._names).to(engine.device))
        denominators = counts[: len(self._names)].float()
        statistics = torch.zeros(len(self._names), 3, device=engine.device)
        for batch, number, _ in batches:
            torch.manual_seed(dropout_seed(self._run.seed, step, number))
            statistics += engine.backward(batch.to(engine.device, non_blocking=True), denominators)
        rate = self._timeline.learning_rate(step)
        outcome = engine.step(rate)
        return StepMeasures(engine.sum(statistics), counts, rate, outcome.gradient_norm)

    def _save(self, step: int) -> None:
        self._event(step, "checkpoint", path=self._saver.save(step).name)

    def _batches(self, phase: int, first_step: int, steps: int) -> Iterator[list[MicroBatch]]:
        settings, engine = self._run.train, self._engine
        deal = Deal(
            first_step=first_step,
            steps=steps,
            batch_rows=self._run.phases[phase].batch_rows,
            micro_batch_rows=settings.micro_batch_rows,
            rank=engine.rank,
            world_size=engine.world_size,
        )
        engine.begin_phase(deal.rounds)
        return load(
            self._data.phases[phase],
            deal,
            workers=settings.loader_workers,
            pin=engine.device.type == "cuda",
        )

    def _log(self, step: int, measured: StepMeasures, seconds: float) -> None:
        if self._tracker is None:
            return
        values = measured.values(self._names, self._objective_weights())
        values["tokens_per_second"] = measured.real_tokens / seconds
        values["slots_per_second"] = measured.slots / seconds
        ratios: Mapping[str, float] = {}
        if isinstance(self._engine.optimizer, Lamb):
            ratios = self._engine.optimizer.trust_ratios()
            ordered = sorted(ratios.values())
            if ordered:
                values["trust_ratio_min"] = ordered[0]
                values["trust_ratio_median"] = ordered[len(ordered) // 2]
                values["trust_ratio_max"] = ordered[-1]
        values["phase"] = self._timeline.place(step - 1).phase
        self._tracker.train(step, values)
        self._progress.tell(step, values)
        self._tracker.trust_ratios(step, ratios)

    def _validate(self, step: int) -> None:
        for name, source in self._data.validation.items():
            settings = self._run.evaluation
            statistics = evaluate_rows(
                self._engine, source, settings.micro_batch_rows, settings.max_rows
            )
            if self._tracker is not None:
                self._tracker.validation(
                    step, name, summarize(statistics, self._names, self._objective_weights())
                )

    def _objective_weights(self) -> list[float]:
        return [objective.weight for objective in self._engine.task.objectives.values()]

    def _event(self, step: int, what: str, **details: Any) -> None:
        if self._tracker is not None:
            self._tracker.event(step, what, **details)


@dataclass(frozen=True)
class StepMeasures:
    """What one step came to; tensors stay on the device until they are looked at."""

    statistics: Tensor
    counts: Tensor
    learning_rate: float
    gradient_norm: float

    @property
    def real_tokens(self) -> int:
        """Tokens that are no padding."""
        return int(self.counts[-3])

    @property
    def slots(self) -> int:
        """Tokens, padding included."""
        return int(self.counts[-2])

    def values(self, names: tuple[str, ...], weights: list[float]) -> dict[str, float]:
        """The record of the step; ``fingerprint`` digests the examples it saw."""
        return {
            **summarize(self.statistics, names, weights),
            "learning_rate": self.learning_rate,
            "gradient_norm": self.gradient_norm,
            "fingerprint": int(self.counts[-1]),
        }


def summarize(statistics: Tensor, names: tuple[str, ...], weights: list[float]) -> dict[str, float]:
    """Means by objective, and the total loss, from sums ``[objectives, 3]``."""
    values: dict[str, float] = {}
    total = 0.0
    for name, weight, (loss, count, correct) in zip(
        names, weights, statistics.tolist(), strict=True
    ):
        mean = loss / max(1.0, count)
        values[f"{name}_loss"] = mean
        values[f"{name}_accuracy"] = correct / max(1.0, count)
        total += weight * mean
    return {"loss": total, **values}


def evaluate_rows(
    engine: Engine, source: RowSource, micro_batch_rows: int, max_rows: int | None
) -> Tensor:
    """Sums ``[objectives, 3]`` over validation rows, dealt to the ranks; the same on any number.

    Rows beyond a multiple of the micro-batch are read alone by rank 0; the other ranks then
    compute weightless batches of the same shape, so that all take part in every collective.
    """
    opened = source.open()
    num_rows = min(opened.num_rows, max_rows or opened.num_rows)
    whole, rest = divmod(num_rows, micro_batch_rows)
    parts = [range(i * micro_batch_rows, (i + 1) * micro_batch_rows) for i in range(whole)]
    if rest:
        parts.append(range(num_rows - rest, num_rows))
    total: Tensor | None = None
    for number in range(0, len(parts), engine.world_size):
        own = number + engine.rank
        batch = to_batch(opened.arrays(parts[own if own < len(parts) else number]))
        if own >= len(parts):
            batch = batch.weightless()
        statistics = engine.evaluate(batch.to(engine.device))
        total = statistics if total is None else total + statistics
    assert total is not None
    return engine.sum(total)


def dropout_seed(seed: int, step: int, micro_batch: int) -> int:
    """The generator's seed for one micro-batch: the same whichever rank computes it."""
    return int(purpose_key(seed, "dropout", step, micro_batch)) >> 1
