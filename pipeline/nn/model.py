"""What trainer, objectives and export ask of every family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext

from torch import Tensor, nn

from pipeline.batch import Batch
from pipeline.nn.initialization import Whole


class PretrainingModel(nn.Module, ABC):
    """A model that predicts at the targets of a batch.

    Attributes:
        outputs: names of all that it can predict; each has weights that only this output trains.
    """

    outputs: tuple[str, ...]

    @abstractmethod
    def initialize(self, whole: Whole = nullcontext) -> None:
        """Draw all weights anew, as the constructor did.

        Args:
            whole: gives access to tensors that the ranks keep in parts.
        """

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Logits ``[targets, classes]`` by the name of the targets, for the batch's targets."""
