"""What the loop asks of an engine. There are two: DeepSpeed's, and plain torch in one process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.batch import Batch, Memory
from pipeline.objectives.task import PretrainingTask
from pipeline.training.checkpoints.background import Put, at_once
from pipeline.training.checkpoints.states import SavedState

Statistics = Float[Tensor, "objectives 3"]
"""Per objective: summed loss, real targets, right ones."""


class Passed(NamedTuple):
    """What a micro-batch came to.

    Attributes:
        statistics: its sums.
        memory: what the model carries on; empty where it carries nothing.
    """

    statistics: Statistics
    memory: Memory


@dataclass(frozen=True)
class StepOutcome:
    """What became of an optimizer step.

    Attributes:
        gradient_norm: the global norm before clipping.
        applied: whether weights and moments moved; they stay as they are, bit for bit, where any
            loss or gradient on any rank is not finite.
        loss_scale: of fp16; None elsewhere.
        overflow: fp16's scale was too large for these gradients and is being lowered: the same
            step is to be computed again.
    """

    gradient_norm: float
    applied: bool = True
    loss_scale: float | None = None
    overflow: bool = False


def finite_or_nan(loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """A factor for the loss: 1 where it is finite, NaN where it is not.

    A loss that is not finite may have finite gradients. With this factor it has none, and the
    one check of the gradients, which the update makes over all ranks, finds both: no rank has to
    wait for its loss before the update.
    """
    return loss.detach() * 0 + 1


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

    def backward(self, batch: Batch, denominators: Float[Tensor, " objectives"]) -> Passed:
        """Add a micro-batch's share of the step's gradient.

        The denominators are the step's global target counts, so that the gradients of all
        micro-batches of all ranks add up to that of the step's mean loss.
        """

    def step(self, learning_rate: float) -> StepOutcome:
        """Clip, update, clear the gradients."""

    def evaluate(self, batch: Batch) -> Passed:
        """What a micro-batch comes to without dropout and without gradients."""

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over the ranks, in place and returned."""

    def exchange(self, value: object) -> list[Any]:
        """What each rank says, by rank, on all ranks."""

    def agree(self, problem: str | None) -> list[str]:
        """The problems of all ranks, on all ranks, so that they stop together."""

    def barrier(self) -> None:
        """Wait for all ranks."""

    def weights(self) -> dict[str, Tensor] | None:
        """All parameters by name in fp32 on the CPU, on rank 0; None elsewhere. Collective."""

    def save(self, directory: Path, put: Put = at_once) -> None:
        """Write the whole training state below ``directory``. Collective.

        Args:
            put: what is large goes through it, to be written at once or later.
        """

    def load(self, directory: Path) -> None:
        """Restore what :meth:`save` wrote, by the same engine in the same form. Collective."""

    def adopt(self, saved: SavedState) -> None:
        """Take over what any engine has saved, at any stage and on any number of ranks.

        Collective. Tensors that are not among the saved ones keep what they have.
        """
