"""Masked language modelling: the original token at each corrupted place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import PositiveFloat

from configs.schema import config, setting
from pipeline.batch import Batch
from pipeline.nn.scores import Scores
from pipeline.objectives.base import Loss, Probability, classification_loss


@config
class MaskedLMConfig:
    """Masked language modelling.

    Attributes:
        weight: the factor of its mean in the total loss.
        probability: the share of steps that it is trained in, drawn by :mod:`.mixing`.
    """

    kind: Literal["masked_lm"]
    weight: PositiveFloat = setting(1.0, resume="recorded")
    probability: Probability = setting(1.0, resume="recorded")


class MaskedLM:
    """Cross-entropy over the vocabulary at the ``masked_lm`` targets.

    Source: Devlin et al. 2018, https://arxiv.org/abs/1810.04805, section 3.1, task 1.
    """

    def __init__(self, config: MaskedLMConfig) -> None:
        self.weight = config.weight
        self.probability = config.probability

    def __call__(self, outputs: Mapping[str, Scores], batch: Batch) -> Loss:
        """The loss of a micro-batch, from scores ``[targets, vocab]``."""
        return classification_loss(outputs["masked_lm"], batch.targets["masked_lm"].labels)
