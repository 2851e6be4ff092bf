"""MacBERT: BERT that corrects words which similar ones have replaced; nothing is masked.

Paper: Cui et al. 2020, https://arxiv.org/abs/2004.13922.
Reference: none was published but the weights (https://github.com/ymcui/MacBERT).

The model is BERT's, with ALBERT's question about the order of two segments in the place of BERT's.
What makes it another family is its corruption (``similar``) and that it begins with the weights of
a BERT, ``train.init_from``:

- body and token head have BERT's names and are taken over;
- pooler and classifier of ``sentence_order`` are drawn anew: ``allow_missing:
  ["heads.sentence_order.*"]``. BERT's own, where it has them, judge another question:
  ``allow_unused: ["heads.next_sentence.*"]``.

Deliberate deviations:

- The paper does not say whether BERT's pooler was kept; here it is not.
- Sequences may be packed: positions restart, and attention stays within each.
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
class MacBertConfig(EncoderConfig):
    """The shape of a MacBERT; the defaults are those of the published base model."""

    family: Literal["macbert"]
    num_segments: PositiveInt = 2

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the model predicts."""
        return ("masked_lm", "sentence_order")


class MacBert(EncoderModel):
    """The encoder with its pretraining heads.

    Outputs: ``masked_lm`` ``[targets, vocab]``; ``sentence_order`` ``[targets, 2]`` for targets at
    the first token of each sequence, class 0 where its segments stand in the order of the text, 1
    where they are swapped.
    """

    def __init__(self, config: MacBertConfig) -> None:
        embeddings = tables(config, num_segments=config.num_segments)
        super().__init__(config, config.outputs, embeddings, layers(config))
        self.heads["masked_lm"] = token_head(config, embeddings.word)
        self.heads["sentence_order"] = sequence_head(config)
        self.initialize()
