"""What BERT and its like share: post-norm blocks with biases, and a batch's way through them."""

from __future__ import annotations

from contextlib import nullcontext

from jaxtyping import Float
from torch import Tensor, nn

from pipeline.batch import Batch, Targets
from pipeline.nn.activations import ActivationName, activation
from pipeline.nn.attention import ScaledDotProduct, SelfAttention
from pipeline.nn.blocks import PostNormBlock, Stack
from pipeline.nn.feed_forward import FeedForward
from pipeline.nn.initialization import Whole, initialize
from pipeline.nn.model import Outputs, PretrainingModel
from pipeline.nn.scores import Scores


class EncoderModel(PretrainingModel):
    """Embeddings, blocks, and a head for each output, which looks at the targets of its name.

    Attributes:
        embeddings: called with ids, positions and segment ids.
        heads: by the name of their output; called with the hidden states and the targets' places.
        initializer_std: of the weights, before the cut at two deviations.
    """

    embeddings: nn.Module
    blocks: Stack
    heads: nn.ModuleDict
    initializer_std: float

    def initialize(self, whole: Whole = nullcontext) -> None:
        """Draw all weights anew; see :func:`pipeline.nn.initialization.initialize`."""
        initialize(self, self.initializer_std, whole=whole)

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


def encoder(
    *,
    num_layers: int,
    hidden_size: int,
    num_heads: int,
    intermediate_size: int,
    activation_name: ActivationName,
    layer_norm_eps: float,
    dropout: float,
    attention_dropout: float,
) -> Stack:
    """The blocks of Devlin et al. 2018, https://arxiv.org/abs/1810.04805."""
    return Stack(
        PostNormBlock(
            SelfAttention(hidden_size, num_heads, ScaledDotProduct(attention_dropout)),
            FeedForward(hidden_size, intermediate_size, activation(activation_name)),
            hidden_size=hidden_size,
            layer_norm_eps=layer_norm_eps,
            dropout=dropout,
        )
        for _ in range(num_layers)
    )


def check_heads(hidden_size: int, num_heads: int) -> None:
    """Raises:
    ValueError: the heads do not divide the width.
    """
    if hidden_size % num_heads:
        raise ValueError(f"hidden_size {hidden_size} is no multiple of num_heads {num_heads}")
