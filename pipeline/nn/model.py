"""What trainer, objectives and export ask of every family."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from pipeline.batch import Batch


class PretrainingModel(nn.Module, ABC):
    """A model that predicts at the targets of a batch.

    Attributes:
        outputs: names of all that it can predict; each has weights that only this output trains.
    """

    outputs: tuple[str, ...]

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Logits ``[targets, classes]`` by the name of the targets, for the batch's targets."""
