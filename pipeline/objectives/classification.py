"""One class of a few, of a token or of a sequence: the tasks that differ in nothing but their data.

What is asked is said where the labels are made: by a corruption (:mod:`.corruption.labelled` of
preprocessing) or by the layout of the examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from pydantic import PositiveFloat

from configs.schema import config, setting
from pipeline.batch import Batch
from pipeline.nn.scores import Scores
from pipeline.objectives.base import Loss, Probability, classification_loss

Question: TypeAlias = Literal[
    "capitalization",  # of a token, 2 classes
    "token_document",  # of a token, 2
    "sentence_order",  # of a sequence, 2 (ALBERT)
    "sentence_reordering",  # of a sequence, 1! + ... + m!
    "sentence_distance",  # of a sequence, 3
    "discourse_relation",  # of a sequence, as many as there are relations
    "relevance",  # of a sequence, 3
    "dialogue_response",  # of a sequence, 2 (ERNIE 1.0)
]
"""The names of targets and logits."""


@config
class ClassificationConfig:
    """A question with a few answers.

    Attributes:
        kind: what is asked.
        weight: the factor of its mean in the total loss.
        probability: the share of steps that it is trained in, drawn by :mod:`.mixing`.
    """

    kind: Question
    weight: PositiveFloat = setting(1.0, resume="recorded")
    probability: Probability = setting(1.0, resume="recorded")


class Classification:
    """Cross-entropy over the classes of one question.

    Source: Sun et al. 2019 (ERNIE 2.0), https://arxiv.org/abs/1907.12412, section 3.2.
    """

    def __init__(self, config: ClassificationConfig) -> None:
        self.name = config.kind
        self.weight = config.weight
        self.probability = config.probability

    def __call__(self, outputs: Mapping[str, Scores], batch: Batch) -> Loss:
        """The loss of a micro-batch, from scores ``[targets, classes]``."""
        return classification_loss(outputs[self.name], batch.targets[self.name].labels)
