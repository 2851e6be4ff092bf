"""What BERT and its like share: their shape, their blocks, and a batch's way through them."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

from jaxtyping import Float
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from configs.schema import config
from pipeline.batch import Batch, Targets
from pipeline.nn.activations import ActivationName, activation
from pipeline.nn.attending import Attending
from pipeline.nn.attention import ScaledDotProduct, SelfAttention
from pipeline.nn.blocks import PostNormBlock, Stack
from pipeline.nn.embeddings import Embeddings
from pipeline.nn.feed_forward import FeedForward
from pipeline.nn.heads import SequenceHead, TokenHead
from pipeline.nn.initialization import Whole, initialize
from pipeline.nn.model import Outputs, PretrainingModel
from pipeline.nn.scores import Scores

Share = Annotated[float, Field(ge=0, lt=1)]


@config
class EncoderConfig:
    """The shape of an encoder; the defaults are those of the published base models.

    Attributes:
        max_positions: the longest sequence.
        activation: ``gelu`` (erf), ``gelu_new`` (tanh) or ``relu``, in blocks and heads.
        dropout: of the embeddings and of each block's two parts.
        attention_dropout: of the attention weights.
        initializer_std: of the weights, before the cut at two deviations.
    """

    vocab_size: PositiveInt
    hidden_size: PositiveInt = 768
    num_layers: PositiveInt = 12
    num_heads: PositiveInt = 12
    intermediate_size: PositiveInt = 3072
    max_positions: PositiveInt = 512
    activation: ActivationName = "gelu"
    dropout: Share = 0.1
    attention_dropout: Share = 0.1
    layer_norm_eps: PositiveFloat = 1e-12
    initializer_std: PositiveFloat = 0.02

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of num_heads {self.num_heads}"
            )

    @property
    def pad_id(self) -> int | None:
        """The id that padding must have; None: any."""
        return None


class EncoderModel(PretrainingModel):
    """Embeddings, blocks, and a head for each output, which looks at the targets of its name.

    A family adds its heads and draws its weights.

    Args:
        outputs: the names of all heads.
        embeddings: called with ids, positions and segment ids.

    Attributes:
        heads: by the name of their output; called with the hidden states and the targets' places.
    """

    def __init__(
        self, config: EncoderConfig, outputs: tuple[str, ...], embeddings: nn.Module, blocks: Stack
    ) -> None:
        super().__init__()
        self.outputs = outputs
        self.attending = Attending(config.attention_dropout, config.hidden_size // config.num_heads)
        self.embeddings = embeddings
        self.blocks = blocks
        self.heads = nn.ModuleDict()
        self._initializer_std = config.initializer_std

    def initialize(self, whole: Whole = nullcontext) -> None:
        """Draw all weights anew; see :func:`pipeline.nn.initialization.initialize`."""
        initialize(self, self._initializer_std, whole=whole)

    def encode(self, batch: Batch) -> Float[Tensor, "rows length hidden"]:
        """The last hidden states of all positions; those of padding mean nothing."""
        segment_ids = batch.segment_ids
        if not self.heeds_segments:
            segment_ids = segment_ids.new_zeros(segment_ids.shape)
        embedded = self.embeddings(batch.ids, batch.positions, segment_ids)
        hidden: Tensor = self.blocks(embedded, self.attending.within(batch, like=embedded))
        return hidden

    def forward(self, batch: Batch) -> Outputs:
        """Scores for the targets of the batch.

        Raises:
            ValueError: the batch has targets that this model has no head for.
        """
        unknown = [name for name in batch.targets if name not in self.outputs]
        if unknown:
            raise ValueError(
                f"no head for {', '.join(unknown)}; this model predicts {', '.join(self.outputs)}"
            )
        hidden = self.encode(batch)
        return {
            name: self.score(name, hidden, batch.targets[name])
            for name in self.heads
            if name in batch.targets
        }

    def score(
        self, name: str, hidden: Float[Tensor, "rows length hidden"], targets: Targets
    ) -> Scores:
        """The scores of one output ``[targets, classes]``."""
        scores: Scores = self.heads[name](hidden, targets.indices)
        return scores


def tables(config: EncoderConfig, *, num_segments: int, first_position: int = 0) -> Embeddings:
    """Tables of words, positions and segments, as wide as the blocks.

    Args:
        first_position: the row of position 0; the rows before it are further ones.
    """
    return Embeddings(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        max_positions=config.max_positions + first_position,
        num_segments=num_segments,
        layer_norm_eps=config.layer_norm_eps,
        dropout=config.dropout,
        first_position=first_position,
    )


def layers(config: EncoderConfig, num_layers: int | None = None) -> Stack:
    """The blocks of Devlin et al. 2018, https://arxiv.org/abs/1810.04805; None: all of them."""
    return Stack(
        PostNormBlock(
            SelfAttention(
                config.hidden_size, config.num_heads, ScaledDotProduct(config.attention_dropout)
            ),
            FeedForward(
                config.hidden_size, config.intermediate_size, activation(config.activation)
            ),
            hidden_size=config.hidden_size,
            layer_norm_eps=config.layer_norm_eps,
            dropout=config.dropout,
        )
        for _ in range(config.num_layers if num_layers is None else num_layers)
    )


def token_head(
    config: EncoderConfig, words: nn.Embedding, *, named: ActivationName | None = None
) -> TokenHead:
    """BERT's head for tokens, tied to the word table.

    Args:
        named: its activation, where it is not that of the blocks.
    """
    return TokenHead(
        words,
        hidden_size=config.hidden_size,
        activation=activation(named or config.activation),
        layer_norm_eps=config.layer_norm_eps,
    )


def sequence_head(config: EncoderConfig, num_classes: int = 2) -> SequenceHead:
    """BERT's head for sequences."""
    return SequenceHead(hidden_size=config.hidden_size, num_classes=num_classes)
