"""What an objective returns, and the sum that most of them are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Protocol, TypeAlias, runtime_checkable

import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from pipeline.batch import IGNORED, Batch
from pipeline.nn.scores import Scores, VocabularyScores

Probability: TypeAlias = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class Loss:
    """Sums over the real targets of a micro-batch; means are taken over the whole step.

    Attributes:
        total: summed loss in nats, fp32, differentiable.
        count: number of real targets, fp32.
        correct: number of them whose highest logit is the right one, fp32.
    """

    total: Float[Tensor, ""]
    count: Float[Tensor, ""]
    correct: Float[Tensor, ""]


@runtime_checkable
class Objective(Protocol):
    """One loss: knows outputs and targets by name, never who made them."""

    @property
    def weight(self) -> float:
        """The factor of its mean in the total loss."""

    @property
    def probability(self) -> float:
        """The share of steps that it is trained in."""

    def __call__(self, outputs: Mapping[str, Scores], batch: Batch) -> Loss:
        """The loss of a micro-batch."""


def classification_loss(scores: Scores, labels: Int[Tensor, " targets"]) -> Loss:
    """Summed cross-entropy in fp32; targets labelled ``IGNORED`` add exactly nothing."""
    count = (labels != IGNORED).sum().float()
    if isinstance(scores, VocabularyScores):
        total, correct = scores.cross_entropy(labels)
        return Loss(total, count, correct)
    return Loss(
        total=F.cross_entropy(scores.float(), labels, ignore_index=IGNORED, reduction="sum"),
        count=count,
        correct=(scores.detach().argmax(-1) == labels).sum().float(),
    )
