"""RoBERTa: BERT trained longer on more, by masked tokens alone, drawn anew in each epoch.

Paper: Liu et al. 2019, https://arxiv.org/abs/1907.11692.
Reference: https://github.com/facebookresearch/fairseq/tree/main/examples/roberta.

Deliberate deviations:

- Special tokens are never masked, as in the paper; fairseq's function leaves none out.
- There is a single segment, whatever the rows say of segments.
- Rows 0 and 1 of the position table belong to no position, as in the reference, which counts from
  the padding's id + 1; padding has the row of position 0 here, and means nothing.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from torch import nn

from configs.schema import config
from pipeline.nn.activations import activation
from pipeline.nn.attending import Attending
from pipeline.nn.embeddings import Embeddings
from pipeline.nn.encoder import EncoderModel, check_heads, encoder
from pipeline.nn.heads import TokenHead

FIRST_POSITION = 2
"""The row of position 0: one after the id of the padding, which is 1."""


@config
class RobertaConfig:
    """The shape of a RoBERTa; the defaults are those of the published base model.

    Attributes:
        max_positions: the longest sequence; the table has two rows more.
        activation: ``gelu`` (erf) or ``gelu_new`` (tanh), in the blocks; the head has ``gelu``.
        dropout: of the embeddings and of each block's two parts.
        attention_dropout: of the attention weights.
        initializer_std: of the weights, before the cut at two deviations.
    """

    family: Literal["roberta"]
    vocab_size: PositiveInt
    hidden_size: PositiveInt = 768
    num_layers: PositiveInt = 12
    num_heads: PositiveInt = 12
    intermediate_size: PositiveInt = 3072
    max_positions: PositiveInt = 512
    activation: Literal["gelu", "gelu_new"] = "gelu"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    layer_norm_eps: PositiveFloat = 1e-5
    initializer_std: PositiveFloat = 0.02

    def __post_init__(self) -> None:
        check_heads(self.hidden_size, self.num_heads)

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the model predicts."""
        return ("masked_lm",)

    @property
    def num_segments(self) -> int:
        """There is one."""
        return 1


class Roberta(EncoderModel):
    """The encoder with its head. Outputs: ``masked_lm`` ``[targets, vocab]``."""

    heeds_segments = False

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__()
        self.outputs = config.outputs
        self.attending = Attending(config.attention_dropout, config.hidden_size // config.num_heads)
        self.embeddings = Embeddings(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            max_positions=config.max_positions + FIRST_POSITION,
            num_segments=config.num_segments,
            layer_norm_eps=config.layer_norm_eps,
            dropout=config.dropout,
            first_position=FIRST_POSITION,
        )
        self.blocks = encoder(
            num_layers=config.num_layers,
            hidden_size=config.hidden_size,
            num_heads=config.num_heads,
            intermediate_size=config.intermediate_size,
            activation_name=config.activation,
            layer_norm_eps=config.layer_norm_eps,
            dropout=config.dropout,
            attention_dropout=config.attention_dropout,
        )
        self.heads = nn.ModuleDict(
            {
                "masked_lm": TokenHead(
                    self.embeddings.word,
                    hidden_size=config.hidden_size,
                    activation=activation("gelu"),  # whatever the blocks have, as in transformers
                    layer_norm_eps=config.layer_norm_eps,
                )
            }
        )
        self.initializer_std = config.initializer_std
        self.initialize()
