"""From ids to the vectors that enter the first block."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn


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
