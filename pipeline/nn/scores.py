"""What a head says of its targets: scores, or the promise of scores too many to hold at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pipeline.nn.cross_entropy import Summed


@dataclass(frozen=True)
class VocabularyScores:
    """Scores over a vocabulary, computed by whoever needs them, in the form that they need.

    Attributes:
        decoder: a module, so that ZeRO 3 gathers its weights whenever it is called: from hidden
            states alone to all logits; from hidden states, labels and ``silent`` to
            :class:`~pipeline.nn.cross_entropy.Summed`.
        hidden: ``[targets, width]``.
        silent: where true, no gradient comes of the loss.
    """

    decoder: Callable[..., Any]
    hidden: Float[Tensor, "targets width"]
    silent: Bool[Tensor, ""] | None = None

    def logits(self) -> Float[Tensor, "targets vocab"]:
        """All of them at once: 4 bytes (fp32) for each target and piece."""
        scores: Tensor = self.decoder(self.hidden)
        return scores if self.silent is None else _stopped(scores, self.silent)

    def cross_entropy(self, labels: Int[Tensor, " targets"]) -> Summed:
        """The summed loss of the targets that have a label, a few of them at a time."""
        summed: Summed = self.decoder(self.hidden, labels, self.silent)
        return summed


Scores: TypeAlias = Tensor | VocabularyScores
"""``[targets, classes]``, as they are or yet to be computed."""


def logits(scores: Scores) -> Float[Tensor, "targets classes"]:
    """Scores as a tensor."""
    return scores.logits() if isinstance(scores, VocabularyScores) else scores


def silenced(scores: Scores, silent: Bool[Tensor, ""]) -> Scores:
    """The same scores, through which no gradient goes where ``silent`` is true."""
    if isinstance(scores, VocabularyScores):
        return replace(scores, silent=silent)
    return _stopped(scores, silent)


def _stopped(scores: Tensor, silent: Tensor) -> Tensor:
    """Both hold the same values; the gradient goes to the one that is taken."""
    return torch.where(silent, scores.detach(), scores)
