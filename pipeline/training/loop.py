"""The loop: positions in, checkpoints and records out. It knows no family and no engine.

Everything a step does follows from its number: which rows (closed form), which draws (keyed),
which dropout (the generator is seeded anew from seed, step and micro-batch). So nothing but the
step needs to be saved, any number of ranks does the same, and a step can be computed again.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor

from pipeline.data import Data, Deal, MicroBatch, OpenRows, load
from pipeline.flops import meter
from pipeline.objectives.mixing import denominators, trained_in
from pipeline.optim import Lamb
from pipeline.optim.lamb import Norms
from pipeline.phases import Timeline
from pipeline.precision import dtype
from pipeline.settings import Run
from pipeline.training.agreement import TrainingStopped, compare_progress
from pipeline.training.carried import Carried
from pipeline.training.checkpoints.saving import Saver
from pipeline.training.dump import Failure, write_failure
from pipeline.training.engine import Engine
from pipeline.training.feeding import Fed, feed
from pipeline.training.guards import Guard, Spike
from pipeline.training.measures import StepMeasures, summarize
from pipeline.training.progress import Progress
from pipeline.training.skips import SetBack
from pipeline.training.tracking import Tracker
from pipeline.training.validating import evaluate_rows
from preprocessing.draws import purpose_key


class Trainer:
    """One training, from a step to the end.

    Args:
        ceiling: FLOP/s of all ranks' devices together (:mod:`pipeline.ceiling`).
    """

    def __init__(
        self,
        run: Run,
        engine: Engine,
        data: Data,
        saver: Saver,
        tracker: Tracker | None,
        guard: Guard,
        set_back: SetBack,
        ceiling: float,
    ) -> None:
        self._run = run
        self._engine = engine
        self._data = data
        self._saver = saver
        self._tracker = tracker
        self._guard = guard
        self._set_back = set_back
        self._ceiling = ceiling
        self._meter = meter(engine.task.model, engine.device, dtype(run.train.precision))
        self._timeline = Timeline(run.phases, run.schedule)
        self._names = engine.task.objective_names
        self._carried = Carried(engine, run.train.micro_batch_rows)
        self._progress = Progress(self._timeline.total_steps)
        self._spikes_told = 0

    def train(self, first_step: int, memory: Mapping[str, Tensor]) -> None:
        """Run all steps from ``first_step`` on, evaluating and saving on the way.

        Args:
            memory: what the streams of the step before left, ``[streams, ...]`` each.
        """
        streams = self._timeline.stretch(first_step).batch_rows
        if memory and all(len(whole) == streams for whole in memory.values()):
            self._carried.deal(memory, streams)
        step, last = first_step, self._timeline.total_steps
        with self._saver.closing():
            while step < last:
                if end := self._set_back.skips.end(step):
                    step = self._pass_over(step, min(end, last))
                else:
                    step = self._train_stretch(step)

    def _train_stretch(self, step: int) -> int:
        """Train as far as the batch stays and nothing is passed over; the step to go on from."""
        phase, stretch = self._timeline.place(step).phase, self._timeline.stretch(step)
        self._event(step, "phase", phase=phase, batch_rows=stretch.batch_rows)
        started = time.perf_counter()
        begins = self._beginnings(step)
        for fed in self._steps(step):
            if begins(step):
                self._carried.forget()
            measured = self._guarded_step(step, fed)
            step += 1
            if measured is not None:
                self._log(step, measured, time.perf_counter() - started)
                if (back_to := self._judge(step, measured)) is not None:
                    return back_to
            self._evaluate_and_save(step)
            started = time.perf_counter()
        return step

    def _pass_over(self, step: int, end: int) -> int:
        """Do nothing up to the step ``end``."""
        self._carried.forget()
        self._event(step, "skip", to=end)
        if end == self._timeline.total_steps:
            self._evaluate_and_save(end)
        return end

    def _guarded_step(self, step: int, fed: Fed) -> StepMeasures | None:
        """A step, computed again where it came to nothing; None where it had to be passed over."""
        retries = self._run.train.guards.retries
        for attempt in range(1 + retries):
            measured = self.step(step, fed)
            while measured.overflowed:
                measured = self.step(step, fed)
            if measured.outcome.applied:
                if attempt:
                    self._tell(
                        step + 1, "retried", f"step {step + 1} was computed {attempt + 1} times"
                    )
                self._guard.applied()
                return measured
        self._tell(
            step + 1,
            "not_finite",
            f"step {step + 1} is passed over: its loss or gradient is not finite",
            gradient_norm=str(measured.outcome.gradient_norm),
        )
        if self._guard.failed():
            self._stop_not_finite(step, fed.batches, measured)
        return None

    def _stop_not_finite(
        self, step: int, batches: list[MicroBatch], measured: StepMeasures
    ) -> NoReturn:
        """Write the step down so that it can be computed again, and end the run."""
        settings, engine = self._run.train, self._engine
        failure = Failure(
            step=step,
            seed=self._run.seed,
            denominators=tuple(self._denominators(step, measured.counts).tolist()),
            engine=engine.kind,
            precision=settings.precision,
            world_size=engine.world_size,
            gradient_norm=str(measured.outcome.gradient_norm),
        )
        seen = [one._replace(batch=self._carried.give(one.batch, one.number)) for one in batches]
        folder = write_failure(self._run, engine, failure, seen)
        self._stop(
            step + 1,
            f"the loss or gradient was not finite in {settings.guards.max_skipped + 1} steps in a "
            f"row, the last of them step {step + 1}; to compute it again: "
            f"python -m pipeline.training.reproduce {folder}",
        )

    def _denominators(self, step: int, counts: Tensor) -> Tensor:
        """What the step's sums are divided by: infinite where it leaves an objective out."""
        trained = trained_in(self._run.seed, step, self._engine.task.objectives)
        place = self._timeline.place(step)
        only = self._data.phases[place.phase].objectives(place.step)
        if only is not None:
            trained &= torch.tensor([name in only for name in self._names])
        return denominators(counts[: len(self._names)].float(), trained)

    def _judge(self, step: int, measured: StepMeasures) -> int | None:
        """Whether the losses up to now let the run go on: None, or the step to go back to."""
        if not self._guard.needs_losses:
            return None
        losses = summarize(measured.statistics, self._names, self._objective_weights())
        self._guard.see(step - 1, losses["loss"])
        if reason := self._guard.reason_to_stop():
            self._stop(step, f"{reason}; the checkpoints before it are kept")
        spike = self._guard.spike()
        return self._leave_spike(spike) if spike else None

    def _leave_spike(self, spike: Spike) -> int | None:
        """Set the run back to before a spike; None where there is nothing to go back to."""
        settings = self._run.train.guards.spike
        assert settings is not None
        told = (
            f"the loss rose from {spike.median:.4f} to {max(spike.losses):.4f} in steps "
            f"{spike.first + 1} to {spike.end}"
        )
        self._saver.finish()
        target = self._set_back.target(spike.first)
        if target is None:
            if spike.first >= self._spikes_told:
                self._tell(spike.end, "spike", f"{told}; no checkpoint before that is kept")
            self._spikes_told = spike.end
            return None
        if len(self._set_back.skips.recorded) >= settings.rewinds:
            self._stop(spike.end, f"{told}, after {settings.rewinds} such rises were passed over")
        state = self._set_back.go(target, spike)
        self._saver.forget_after(state.step)
        self._guard.restore(state.guards)
        if self._tracker is not None:
            self._tracker.rewind(state.step)
        self._tell(
            state.step,
            "set_back",
            f"{told}: the run is set back to step {state.step} and passes over what follows",
            losses=list(spike.losses),
        )
        return state.step

    def _evaluate_and_save(self, step: int) -> None:
        settings, last = self._run.train, self._timeline.total_steps
        if step % settings.evaluate_every == 0 or step == last:
            self._validate(step)
        if step % settings.save_every == 0 or step == last:
            self._save(step)

    def _stop(self, step: int, reason: str) -> NoReturn:
        self._event(step, "stopped", reason=reason)
        raise TrainingStopped(f"stopped after step {step}: {reason}")

    def step(self, step: int, fed: Fed) -> StepMeasures:
        """One optimizer step on this rank's micro-batches.

        The host waits for the device where the engine learns whether the gradient is finite, and
        so whether the step is applied; an optimizer of :mod:`pipeline.optim.finite` asks once more.
        """
        engine = self._engine
        counts = engine.sum(fed.counts.clone())
        divisors = self._denominators(step, counts)
        statistics = torch.zeros(len(self._names), 3, device=engine.device)
        for batch, number, _ in fed.batches:
            torch.manual_seed(dropout_seed(self._run.seed, step, number))
            passed = engine.backward(self._carried.give(batch, number), divisors)
            statistics += passed.statistics
            self._carried.keep(number, passed.memory)
        rate = self._timeline.learning_rate(step)
        outcome = engine.step(rate)
        self._carried.settle(outcome.applied)
        return StepMeasures(engine.sum(statistics), counts, rate, outcome)

    def _save(self, step: int) -> None:
        memory = self._carried.gather(self._timeline.stretch(step - 1).batch_rows)
        self._saver.save(step, self._guard.plain(), self._set_back.skips.recorded, memory)

    def _beginnings(self, step: int) -> Callable[[int], bool]:
        """At which steps of a stretch the streams begin anew; tells where memory is missing."""
        if not self._carried.used:
            return lambda step: False
        place, stretch = self._timeline.place(step), self._timeline.stretch(step)
        rows, before = self._data.phases[place.phase].open(), step - place.step
        assert isinstance(rows, OpenRows)

        def begins(step: int) -> bool:
            return rows.begins(stretch.position(step - before))

        if not begins(step) and self._carried.anew:
            told = f"step {step + 1}: no memory is left of the text before; it begins anew"
            self._tell(step, "memory", told)
        return begins

    def _steps(self, step: int) -> Iterator[Fed]:
        """This rank's work, step after step, from ``step`` as far as the batch stays and nothing
        is passed over."""
        settings, engine = self._run.train, self._engine
        place, stretch = self._timeline.place(step), self._timeline.stretch(step)
        end = self._set_back.skips.next(step, step + stretch.end_step - place.step)
        deal = Deal(
            first_position=stretch.position(place.step),
            steps=end - step,
            batch_rows=stretch.batch_rows,
            micro_batch_rows=settings.micro_batch_rows,
            rank=engine.rank,
            world_size=engine.world_size,
        )
        engine.begin_phase(deal.rounds)
        loaded = load(
            self._data.phases[place.phase],
            deal,
            workers=settings.loader_workers,
            pin=engine.device.type == "cuda",
        )
        path = engine.task.model.attention_path(engine.device, dtype(settings.precision))
        varlen = path.name == "varlen"
        return feed(loaded, engine.device, self._names, varlen=varlen, meter=self._meter)

    def _log(self, step: int, measured: StepMeasures, seconds: float) -> None:
        """Tell of a step where the interval asks for it; all ranks then compare where they are."""
        if step % self._run.train.log_every and step != self._timeline.total_steps:
            return
        compare_progress(step, measured.learning_rate)
        self._saver.advance()
        if self._tracker is None:
            return
        values = measured.values(self._names, self._objective_weights())
        values |= measured.speeds(seconds, self._ceiling)
        ratios: Mapping[str, float] = {}
        norms: Mapping[str, Norms] = {}
        if isinstance(self._engine.optimizer, Lamb):
            ratios, norms = self._engine.optimizer.trust_ratios(), self._engine.optimizer.norms()
            ordered = sorted(ratios.values())
            if ordered:
                values["trust_ratio_min"] = ordered[0]
                values["trust_ratio_median"] = ordered[len(ordered) // 2]
                values["trust_ratio_max"] = ordered[-1]
        values["skipped_steps"] = self._guard.skipped_steps
        values["phase"] = self._timeline.place(step - 1).phase
        self._tracker.train(step, values)
        self._progress.tell(step, values)
        self._tracker.tensors(
            step,
            trust_ratio=ratios,
            weight_norm={name: norm.weight for name, norm in norms.items()},
            update_norm={name: norm.update for name, norm in norms.items()},
        )

    def _validate(self, step: int) -> None:
        for name, source in self._data.validation.items():
            settings = self._run.evaluation
            statistics = evaluate_rows(
                self._engine, source, settings.micro_batch_rows, settings.max_rows
            )
            values = summarize(statistics, self._names, self._objective_weights())
            if not math.isfinite(values["loss"]):
                self._tell(step, "not_finite", f"the loss on '{name}' is not finite", set=name)
            elif self._tracker is not None:
                self._tracker.validation(step, name, values)

    def _objective_weights(self) -> list[float]:
        return [objective.weight for objective in self._engine.task.objectives.values()]

    def _tell(self, step: int, what: str, told: str, **details: Any) -> None:
        """An event that the user is told of at once."""
        self._event(step, what, told=told, **details)
        if self._engine.rank == 0:
            print(told, file=sys.stderr, flush=True)

    def _event(self, step: int, what: str, **details: Any) -> None:
        if self._tracker is not None:
            self._tracker.event(step, what, **details)


def dropout_seed(seed: int, step: int, micro_batch: int) -> int:
    """The generator's seed for one micro-batch: the same whichever rank computes it."""
    return int(purpose_key(seed, "dropout", step, micro_batch)) >> 1
