"""BERT: a bidirectional encoder that fills in masked tokens and judges pairs of segments.

Paper: Devlin et al. 2018, https://arxiv.org/abs/1810.04805.
Reference: https://github.com/google-research/bert (``modeling.py``, ``run_pretraining.py``).

Deliberate deviations:

- ``activation`` defaults to the exact gelu, as in transformers; the reference code approximates
  it by tanh, which is ``gelu_new`` here.
- Sequences may be packed: positions restart, and attention stays within each.
- ``next_sentence=False`` leaves out pooler and classifier, for corpora without pairs.
"""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from configs.schema import config
from pipeline.nn.encoder import (
    EncoderConfig,
    EncoderModel,
    layers,
    sequence_head,
    tables,
    token_head,
)


@config
class BertConfig(EncoderConfig):
    """The shape of a BERT; the defaults are those of the published base model.

    Attributes:
        next_sentence: whether there is a head for ``next_sentence``.
    """

    family: Literal["bert"]
    num_segments: PositiveInt = 2
    next_sentence: bool = True

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the model predicts."""
        return ("masked_lm", "next_sentence") if self.next_sentence else ("masked_lm",)


class Bert(EncoderModel):
    """The encoder with its pretraining heads.

    Outputs: ``masked_lm`` ``[targets, vocab]``; ``next_sentence`` ``[targets, 2]`` for targets at
    the first token of each sequence, class 0 where the second segment follows the first in its
    document, 1 where it comes from elsewhere.
    """

    def __init__(self, config: BertConfig) -> None:
        embeddings = tables(config, num_segments=config.num_segments)
        super().__init__(config, config.outputs, embeddings, layers(config))
        self.heads["masked_lm"] = token_head(config, embeddings.word)
        if config.next_sentence:
            self.heads["next_sentence"] = sequence_head(config)
        self.initialize()
