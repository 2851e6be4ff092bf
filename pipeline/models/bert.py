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
class BertConfig:
    """The shape of a BERT; the defaults are those of the published base model.

    Attributes:
        max_positions: the longest sequence.
        activation: ``gelu`` (erf) or ``gelu_new`` (tanh), in blocks and token head.
        dropout: of the embeddings and of each block's two parts.
        attention_dropout: of the attention weights.
        initializer_std: of the weights, before the cut at two deviations.
        next_sentence: whether there is a head for ``next_sentence``.
    """

    family: Literal["bert"]
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
    next_sentence: bool = True

    def __post_init__(self) -> None:
        check_heads(self.hidden_size, self.num_heads)

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
        super().__init__()
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
        self.heads = nn.ModuleDict()
        self.heads["masked_lm"] = TokenHead(
            self.embeddings.word,
            hidden_size=config.hidden_size,
            activation=activation(config.activation),
            layer_norm_eps=config.layer_norm_eps,
        )
        if config.next_sentence:
            self.heads["next_sentence"] = SequenceHead(
                hidden_size=config.hidden_size, num_classes=2
            )
        self.outputs = tuple(self.heads)
        self.attending = Attending(config.attention_dropout, config.hidden_size // config.num_heads)
        self.initializer_std = config.initializer_std
        self.initialize()
