"""What the loop asks of an engine. There are two: DeepSpeed's, and plain torch in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.batch import Batch
from pipeline.objectives.task import PretrainingTask

Statistics = Float[Tensor, "objectives 3"]
"""Per objective: summed loss, real targets, right ones."""


class Engine(Protocol):
    """Forward, backward and step on the ranks there are."""

    kind: str
    rank: int
    world_size: int
    device: torch.device
    task: PretrainingTask
    optimizer: torch.optim.Optimizer

    def begin_phase(self, rounds: int) -> None:
        """From here on a step has ``rounds`` micro-batches on each rank."""

    def backward(self, batch: Batch, denominators: Float[Tensor, " objectives"]) -> Statistics:
        """Add a micro-batch's share of the step's gradient.

        The denominators are the step's global target counts, so that the gradients of all
        micro-batches of all ranks add up to that of the step's mean loss.
        """

    def step(self, learning_rate: float) -> float:
        """Clip, update, clear the gradients; returns the gradient's norm before clipping."""

    def evaluate(self, batch: Batch) -> Statistics:
        """The statistics of a micro-batch without dropout and without gradients."""

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over the ranks, in place and returned."""

    def agree(self, problem: str | None) -> list[str]:
        """The problems of all ranks, on all ranks, so that they stop together."""

    def barrier(self) -> None:
        """Wait for all ranks."""

    def weights(self) -> dict[str, Tensor] | None:
        """All parameters by name in fp32 on the CPU, on rank 0; None elsewhere. Collective."""

    def save(self, directory: Path) -> None:
        """Write the whole training state below ``directory``. Collective."""

    def load(self, directory: Path) -> None:
        """Restore what :meth:`save` wrote. Collective."""
