"""ALBERT: BERT of a few million weights; layers share theirs, and the tables are narrow.

Paper: Lan et al. 2019, https://arxiv.org/abs/1909.11942.
Reference: https://github.com/google-research/albert (``modeling.py``, ``run_pretraining.py``).

Deliberate deviations:

- There is a projection from the tables' width to the model's even where the two are equal, as in
  transformers; the reference leaves it out then.
- Sequences may be packed: positions restart, and attention stays within each.
- ``sentence_order=False`` leaves out pooler and classifier, for corpora without pairs.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, PositiveFloat, PositiveInt
from torch import nn

from configs.schema import config
from pipeline.nn.activations import activation
from pipeline.nn.attending import Attending
from pipeline.nn.blocks import Stack
from pipeline.nn.embeddings import FactorizedEmbeddings
from pipeline.nn.encoder import EncoderModel, check_heads, encoder
from pipeline.nn.heads import SequenceHead, TokenHead
from pipeline.nn.sharing import Part, repeat_groups, share_part

Sharing: TypeAlias = Literal["all", Part, "none"]


@config
class AlbertConfig:
    """The shape of an ALBERT; the defaults are those of the published base model.

    Attributes:
        embedding_size: width of the tables of words, positions and segments.
        sharing: what the layers have in common: whole layers, their ``attention`` or their feed
            forward part (``ffn``), each with its norm, or nothing.
        num_groups: of consecutive layers, each of which shares within itself; of whole layers only.
        max_positions: the longest sequence.
        activation: ``gelu`` (erf) or ``gelu_new`` (tanh), in blocks and token head.
        dropout: of the embeddings and of each block's two parts; the published xxlarge model and
            all of version 2 have 0.
        attention_dropout: of the attention weights; likewise.
        initializer_std: of the weights, before the cut at two deviations.
        sentence_order: whether there is a head for ``sentence_order``.
    """

    family: Literal["albert"]
    vocab_size: PositiveInt
    embedding_size: PositiveInt = 128
    hidden_size: PositiveInt = 768
    num_layers: PositiveInt = 12
    num_heads: PositiveInt = 12
    intermediate_size: PositiveInt = 3072
    sharing: Sharing = "all"
    num_groups: PositiveInt = 1
    max_positions: PositiveInt = 512
    num_segments: PositiveInt = 2
    activation: Literal["gelu", "gelu_new"] = "gelu_new"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    layer_norm_eps: PositiveFloat = 1e-12
    initializer_std: PositiveFloat = 0.02
    sentence_order: bool = True

    def __post_init__(self) -> None:
        check_heads(self.hidden_size, self.num_heads)
        if self.num_groups > 1 and self.sharing != "all":
            raise ValueError(
                f"num_groups {self.num_groups} with sharing {self.sharing}: groups share whole "
                "layers; use sharing all"
            )
        if self.num_groups > 1 and self.num_groups >= self.num_layers:
            raise ValueError(
                f"num_groups {self.num_groups} for {self.num_layers} layers; use fewer groups, or "
                "sharing none"
            )

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the model predicts."""
        return ("masked_lm", "sentence_order") if self.sentence_order else ("masked_lm",)


class Albert(EncoderModel):
    """The encoder with its pretraining heads.

    Outputs: ``masked_lm`` ``[targets, vocab]``; ``sentence_order`` ``[targets, 2]`` for targets at
    the first token of each sequence, class 1 where the two segments stand in reverse order.
    """

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__()
        self.outputs = config.outputs
        self.attending = Attending(config.attention_dropout, config.hidden_size // config.num_heads)
        self.embeddings = FactorizedEmbeddings(
            vocab_size=config.vocab_size,
            embedding_size=config.embedding_size,
            hidden_size=config.hidden_size,
            max_positions=config.max_positions,
            num_segments=config.num_segments,
            layer_norm_eps=config.layer_norm_eps,
            dropout=config.dropout,
        )
        self.blocks = _layers(config)
        self.heads = nn.ModuleDict()
        self.heads["masked_lm"] = TokenHead(
            self.embeddings.word,
            hidden_size=config.hidden_size,
            activation=activation(config.activation),
            layer_norm_eps=config.layer_norm_eps,
        )
        if config.sentence_order:
            self.heads["sentence_order"] = SequenceHead(
                hidden_size=config.hidden_size, num_classes=2
            )
        self.initializer_std = config.initializer_std
        self.initialize()


def _layers(config: AlbertConfig) -> Stack:
    distinct = encoder(
        num_layers=config.num_groups if config.sharing == "all" else config.num_layers,
        hidden_size=config.hidden_size,
        num_heads=config.num_heads,
        intermediate_size=config.intermediate_size,
        activation_name=config.activation,
        layer_norm_eps=config.layer_norm_eps,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
    )
    match config.sharing:
        case "all":
            return repeat_groups(distinct, config.num_layers)
        case "none":
            return distinct
        case part:
            return share_part(distinct, part)
