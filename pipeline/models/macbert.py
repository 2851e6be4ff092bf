"""MacBERT: BERT that corrects words which similar ones have replaced, and never sees [MASK].

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

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from torch import nn

from configs.schema import config
from pipeline.nn.activations import activation
from pipeline.nn.attending import Attending
from pipeline.nn.embeddings import Embeddings
from pipeline.nn.encoder import EncoderModel, check_heads, encoder
from pipeline.nn.heads import SequenceHead, TokenHead


@config
class MacBertConfig:
    """The shape of a MacBERT; the defaults are those of the published base model.

    Attributes:
        max_positions: the longest sequence.
        activation: ``gelu`` (erf) or ``gelu_new`` (tanh), in blocks and token head.
        dropout: of the embeddings and of each block's two parts.
        attention_dropout: of the attention weights.
        initializer_std: of the weights, before the cut at two deviations.
    """

    family: Literal["macbert"]
    vocab_size: PositiveInt
    hidden_size: PositiveInt = 768
    num_layers: PositiveInt = 12
    num_heads: PositiveInt = 12
    intermediate_size: PositiveInt = 3072
    max_positions: PositiveInt = 512
    num_segments: PositiveInt = 2
    activation: Literal["gelu", "gelu_new"] = "gelu"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    layer_norm_eps: PositiveFloat = 1e-12
    initializer_std: PositiveFloat = 0.02

    def __post_init__(self) -> None:
        check_heads(self.hidden_size, self.num_heads)

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
        super().__init__()
        self.outputs = config.outputs
        self.attending = Attending(config.attention_dropout, config.hidden_size // config.num_heads)
        self.embeddings = Embeddings(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            max_positions=config.max_positions,
            num_segments=config.num_segments,
            layer_norm_eps=config.layer_norm_eps,
            dropout=config.dropout,
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
                    activation=activation(config.activation),
                    layer_norm_eps=config.layer_norm_eps,
                ),
                "sentence_order": SequenceHead(hidden_size=config.hidden_size, num_classes=2),
            }
        )
        self.initializer_std = config.initializer_std
        self.initialize()
