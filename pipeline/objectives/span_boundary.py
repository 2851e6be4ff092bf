"""The span boundary objective: the tokens of a span, of the two that stand around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import PositiveFloat

from configs.schema import config, setting
from pipeline.batch import Batch
from pipeline.nn.scores import Scores
from pipeline.objectives.base import Loss, Probability, classification_loss


@config
class SpanBoundaryConfig:
    """The span boundary objective.

    Attributes:
        weight: the factor of its mean in the total loss.
        probability: the share of steps that it is trained in, drawn by :mod:`.mixing`.
    """

    kind: Literal["span_boundary"]
    weight: PositiveFloat = setting(1.0, resume="recorded")
    probability: Probability = setting(1.0, resume="recorded")


class SpanBoundary:
    """Cross-entropy over the vocabulary at the ``span_boundary`` targets.

    Source: Joshi et al. 2019, https://arxiv.org/abs/1907.10529, section 3.2.
    """

    def __init__(self, config: SpanBoundaryConfig) -> None:
        self.weight = config.weight
        self.probability = config.probability

    def __call__(self, outputs: Mapping[str, Scores], batch: Batch) -> Loss:
        """The loss of a micro-batch, from scores ``[targets, vocab]``."""
        return classification_loss(outputs["span_boundary"], batch.targets["span_boundary"].labels)
