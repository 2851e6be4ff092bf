"""Trainings in which something goes wrong on purpose: what is wrong, where, and how often."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from small_run import Job, run_job
from spawned import spawn
from torch import Tensor

from pipeline.objectives.task import Computed, PretrainingTask
from pipeline.training.loop import Trainer

STOPPED = "stopped.txt"


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong in the steps ``[first, end)``, in their first ``times`` attempts.

    Attributes:
        kind: a ``loss`` that is NaN while its gradients are finite, an infinite ``gradient`` of
            every tensor, one infinite ``element`` of one, gradients too ``large`` for fp32 to
            square, ``weights`` that are infinite from then on, or ``raised`` losses.
        rank: where; None on all.
    """

    kind: Literal["loss", "gradient", "element", "large", "weights", "raised"]
    first: int
    end: int = 10**9
    times: int = 10**9
    rank: int | None = None


class _Scaled(torch.autograd.Function):
    """The identity, with its gradient multiplied."""

    @staticmethod
    def forward(context: Any, loss: Tensor, factor: float) -> Tensor:
        context.factor = factor
        return loss.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * context.factor, None


@contextmanager
def injected(faults: Sequence[Fault]) -> Iterator[None]:
    """Trainings of this process, spoiled."""
    original_step, original_forward = Trainer.step, PretrainingTask.forward
    now: list[int] = [-1, 0]  # the step, and its attempt

    def active(*kinds: str) -> list[Fault]:
        rank = int(os.environ.get("RANK", "0"))
        return [
            fault
            for fault in faults
            if fault.kind in kinds
            and fault.first <= now[0] < fault.end
            and now[1] < fault.times
            and fault.rank in (None, rank)
        ]

    def step(self: Trainer, number: int, batches: Any) -> Any:
        now[:] = [number, now[1] + 1 if now[0] == number else 0]
        handles = []
        bias = next(p for name, p in self._engine.task.named_parameters() if "norm.bias" in name)
        if active("weights"):
            with torch.no_grad():
                bias[0] = math.inf
        if active("element"):
            handles.append(bias.register_hook(_first_element_infinite))
        try:
            return original_step(self, number, batches)
        finally:
            for handle in handles:
                handle.remove()

    def forward(self: PretrainingTask, batch: Any, denominators: Tensor) -> Any:
        loss, statistics, memory = original_forward(self, batch, denominators)
        if not self.training:
            return Computed(loss, statistics, memory)
        if active("loss"):
            loss = loss + math.nan
        if active("gradient"):
            loss = _Scaled.apply(loss, math.inf)
        if active("large"):
            loss = _Scaled.apply(loss, 1e30)
        if active("raised"):
            statistics = statistics * torch.tensor([5.0, 1.0, 1.0])
        return Computed(loss, statistics, memory)

    Trainer.step, PretrainingTask.forward = step, forward
    try:
        yield
    finally:
        Trainer.step, PretrainingTask.forward = original_step, original_forward


def _first_element_infinite(gradient: Tensor) -> Tensor:
    spoiled = gradient.clone()
    spoiled[0] = math.inf
    return spoiled


def run_faulty(recipe: Path, job: Job, *faults: Fault) -> str | None:
    """One training in this process; why it was stopped, if it was."""
    from pipeline.training.agreement import TrainingStopped

    with injected(faults):
        try:
            run_job(recipe, job)
        except TrainingStopped as reason:
            return str(reason)
    return None


def run_faulty_jobs(
    recipe: Path, jobs: Sequence[tuple[Job, tuple[Fault, ...]]], ranks: int
) -> None:
    """Trainings one after the other in the same processes; rank r writes ``stopped.txt.r``."""
    spawn(_work, ranks, recipe, tuple(jobs))


def _work(rank: int, recipe: Path, jobs: Any) -> None:
    for job, faults in jobs:
        if reason := run_faulty(recipe, job, *faults):
            (job.output / f"{STOPPED}.{rank}").write_text(reason)
