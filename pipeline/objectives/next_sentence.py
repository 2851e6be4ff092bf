"""Next sentence prediction: does the second segment follow the first in its document?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import PositiveFloat

from configs.schema import config, setting
from pipeline.batch import Batch
from pipeline.nn.scores import Scores
from pipeline.objectives.base import Loss, Probability, classification_loss


@config
class NextSentenceConfig:
    """Next sentence prediction.

    Attributes:
        weight: the factor of its mean in the total loss.
        probability: the share of steps that it is trained in, drawn by :mod:`.mixing`.
    """

    kind: Literal["next_sentence"]
    weight: PositiveFloat = setting(1.0, resume="recorded")
    probability: Probability = setting(1.0, resume="recorded")


class NextSentence:
    """Cross-entropy over two classes, 0 for a true successor and 1 for a random segment.

    Source: Devlin et al. 2018, https://arxiv.org/abs/1810.04805, section 3.1, task 2.
    """

    def __init__(self, config: NextSentenceConfig) -> None:
        self.weight = config.weight
        self.probability = config.probability

    def __call__(self, outputs: Mapping[str, Scores], batch: Batch) -> Loss:
        """The loss of a micro-batch, from scores ``[targets, 2]``."""
        return classification_loss(outputs["next_sentence"], batch.targets["next_sentence"].labels)
