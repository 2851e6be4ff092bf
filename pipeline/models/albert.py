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

from typing import Literal, TypeAlias

from pydantic import PositiveInt

from configs.schema import config
from pipeline.nn.activations import ActivationName
from pipeline.nn.blocks import Stack
from pipeline.nn.embeddings import FactorizedEmbeddings
from pipeline.nn.encoder import EncoderConfig, EncoderModel, layers, sequence_head, token_head
from pipeline.nn.sharing import Part, repeat_groups, share_part

Sharing: TypeAlias = Literal["all", Part, "none"]


@config
class AlbertConfig(EncoderConfig):
    """The shape of an ALBERT; the defaults are those of the published base model.

    Attributes:
        embedding_size: width of the tables of words, positions and segments.
        sharing: what the layers have in common: whole layers, their ``attention`` or their feed
            forward part (``ffn``), each with its norm, or nothing.
        num_groups: of consecutive layers, each of which shares within itself; of whole layers only.
        dropout, attention_dropout: the published xxlarge model and all of version 2 have 0.
        sentence_order: whether there is a head for ``sentence_order``.
    """

    family: Literal["albert"]
    embedding_size: PositiveInt = 128
    sharing: Sharing = "all"
    num_groups: PositiveInt = 1
    num_segments: PositiveInt = 2
    activation: ActivationName = "gelu_new"
    sentence_order: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_layers == 1 and self.sharing != "all":
            raise ValueError("a single layer shares with no other; use sharing all")
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
        embeddings = FactorizedEmbeddings(
            vocab_size=config.vocab_size,
            embedding_size=config.embedding_size,
            hidden_size=config.hidden_size,
            max_positions=config.max_positions,
            num_segments=config.num_segments,
            layer_norm_eps=config.layer_norm_eps,
            dropout=config.dropout,
        )
        super().__init__(config, config.outputs, embeddings, _layers(config))
        self.heads["masked_lm"] = token_head(config, embeddings.word)
        if config.sentence_order:
            self.heads["sentence_order"] = sequence_head(config)
        self.initialize()


def _layers(config: AlbertConfig) -> Stack:
    match config.sharing:
        case "all":
            return repeat_groups(layers(config, config.num_groups), config.num_layers)
        case "none":
            return layers(config)
        case part:
            return share_part(layers(config), part)
