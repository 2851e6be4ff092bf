"""From ids to the vectors that enter the first block."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.nn.products import Linear


class Embeddings(nn.Module):
    """The sum of word, learned position and segment vectors, normed, with dropout.

    No row of the word table is special: padding is kept out of the results by the mask and by
    the targets, so its row only learns as a class of the decoder that shares the table.

    Args:
        first_position: the row of the position table that position 0 has.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        hidden_size: int,
        max_positions: int,
        num_segments: int,
        layer_norm_eps: float,
        dropout: float,
        first_position: int = 0,
    ) -> None:
        super().__init__()
        self.first_position = first_position
        self.word = nn.Embedding(vocab_size, hidden_size)
        self.position = nn.Embedding(max_positions, hidden_size)
        self.segment = nn.Embedding(num_segments, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        ids: Int[Tensor, "rows length"],
        positions: Int[Tensor, "rows length"],
        segment_ids: Int[Tensor, "rows length"],
    ) -> Float[Tensor, "rows length hidden"]:
        """The embedded rows; each id must lie within its table."""
        summed = (
            self.word(ids)
            + self.position(positions + self.first_position)
            + self.segment(segment_ids)
        )
        embedded: Tensor = self.dropout(self.norm(summed))
        return embedded


class FactorizedEmbeddings(Embeddings):
    """Tables of a width of their own, normed at that width, and a projection to the model's.

    Args:
        embedding_size: of the tables.
        hidden_size: of what comes out.

    Source: Lan et al. 2019 (ALBERT), https://arxiv.org/abs/1909.11942, section 3.1.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        embedding_size: int,
        hidden_size: int,
        max_positions: int,
        num_segments: int,
        layer_norm_eps: float,
        dropout: float,
    ) -> None:
        super().__init__(
            vocab_size=vocab_size,
            hidden_size=embedding_size,
            max_positions=max_positions,
            num_segments=num_segments,
            layer_norm_eps=layer_norm_eps,
            dropout=dropout,
        )
        self.projection = Linear(embedding_size, hidden_size)

    def forward(
        self,
        ids: Int[Tensor, "rows length"],
        positions: Int[Tensor, "rows length"],
        segment_ids: Int[Tensor, "rows length"],
    ) -> Float[Tensor, "rows length hidden"]:
        """The embedded rows; each id must lie within its table."""
        embedded = super().forward(ids, positions, segment_ids)
        # Where autocast would narrow it: what enters the first block is as what enters the others.
        projected: Tensor = self.projection(embedded).to(embedded.dtype)
        return projected
