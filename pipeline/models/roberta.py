"""RoBERTa: BERT trained longer on more, by masked tokens alone, drawn anew in each epoch.

Paper: Liu et al. 2019, https://arxiv.org/abs/1907.11692.
Reference: https://github.com/facebookresearch/fairseq/tree/main/examples/roberta.

Deliberate deviations:

- Special tokens are never masked, as in the paper; fairseq's function leaves none out.
- There is a single segment, whatever the rows say of segments.
- Rows 0 and 1 of the position table belong to no position, as in the reference, which counts from
  the padding's id + 1; padding has the row of position 0 here, and means nothing.
- Weights are drawn from a normal distribution cut at two deviations; the reference's is not.
- Of a pair, which only fine-tuning has, the exported tokenizer parts the segments by one ``</s>``;
  the published one has two.
"""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat

from configs.schema import config
from pipeline.nn.encoder import EncoderConfig, EncoderModel, layers, tables, token_head

FIRST_POSITION = 2
"""The row of position 0: one after the id of the padding, which is 1."""


@config
class RobertaConfig(EncoderConfig):
    """The shape of a RoBERTa; the defaults are those of the published base model.

    Attributes:
        max_positions: the longest sequence; the table has two rows more.
        activation: of the blocks; the head has ``gelu``.
    """

    family: Literal["roberta"]
    layer_norm_eps: PositiveFloat = 1e-5

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the model predicts."""
        return ("masked_lm",)

    @property
    def pad_id(self) -> int:
        """Positions count from the next id."""
        return FIRST_POSITION - 1

    @property
    def num_segments(self) -> int:
        """There is one."""
        return 1


class Roberta(EncoderModel):
    """The encoder with its head. Outputs: ``masked_lm`` ``[targets, vocab]``."""

    heeds_segments = False

    def __init__(self, config: RobertaConfig) -> None:
        embeddings = tables(config, num_segments=config.num_segments, first_position=FIRST_POSITION)
        super().__init__(config, config.outputs, embeddings, layers(config))
        # Whatever the blocks have, as in transformers.
        self.heads["masked_lm"] = token_head(config, embeddings.word, named="gelu")
        self.initialize()
