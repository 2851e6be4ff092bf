"""What trainer, objectives and export ask of every family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import ClassVar, TypeAlias

import torch
from torch import nn

from pipeline.batch import Batch, Memory
from pipeline.nn.attending import Attending, Path
from pipeline.nn.initialization import Whole
from pipeline.nn.scores import Scores
from preprocessing.corruption.base import Scheme

MEMORY = "memory/"
"""What begins the names of outputs that are given to the next micro-batch."""
LABELS = "labels/"
"""What begins the names of outputs that are labels: of the targets whose name follows."""

Outputs: TypeAlias = dict[str, Scores]


class PretrainingModel(nn.Module, ABC):
    """A model that predicts at the targets of a batch.

    Attributes:
        outputs: names of all that it can predict; each has weights that only this output trains.
        attending: how its attention is computed.
        heeds_segments: whether it tells segments apart; all are one to it where it does not.
        attention_rules: what its attention heeds beyond whole sequences, of what corruptions may
            ask for (:meth:`preprocessing.corruption.base.Scheme.attention`).
    """

    outputs: tuple[str, ...]
    attending: Attending
    heeds_segments: ClassVar[bool] = True
    attention_rules: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def initialize(self, whole: Whole = nullcontext) -> None:
        """Draw all weights anew, as the constructor did.

        Args:
            whole: gives access to tensors that the ranks keep in parts.
        """

    def initial_memory(self, rows: int) -> Memory | None:
        """What a stream remembers where it begins, ``[rows, ...]``; None: nothing is carried.

        A batch whose memory is None stands at the beginning, too.
        """
        return None

    def misfit(self, scheme: Scheme) -> str | None:
        """What of a corruption this model cannot take, with a way out; None: it takes all."""
        return None

    def attention_path(self, device: torch.device, dtype: torch.dtype) -> Path:
        """How its attention is computed there, in that precision, and why."""
        return self.attending.path(device.type, dtype)

    @abstractmethod
    def forward(self, batch: Batch) -> Outputs:
        """Scores ``[targets, classes]`` by the name of the targets, for the batch's targets.

        A model that carries something from micro-batch to micro-batch adds ``memory/<name>``, of
        the names and shapes of :meth:`initial_memory`. One that makes the labels of some targets
        itself, as a discriminator's depend on what the generator draws, adds ``labels/<name>``
        ``[targets]``; they count where the batch has a label.
        """
