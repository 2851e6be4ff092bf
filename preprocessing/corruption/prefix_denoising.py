"""T5's prefix language modelling (arXiv 1910.10683, section 3.3.1), for an encoder and a decoder.

Each sequence is split before one of its tokens but the first, all splits being equally likely; the
encoder sees what stands before the split, the decoder is to say the rest. Both end with </s>.

    Thank you for | inviting me
    inputs     Thank you for </s>
    said       inviting me </s>
    decoder    [PAD] inviting me

Deviation: of a sequence of a single token the encoder sees nothing but </s>. Special tokens of the
frame are left out first: the frame is ``none``.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from configs.schema import config
from preprocessing.corruption.base import Bounds, Context, Corrupted, Scheme, Sequences, Side
from preprocessing.corruption.decoding import (
    DENOISING,
    denoised,
    offsets_of,
    plain_tokens,
)
from preprocessing.draws import integers

_SPLIT = 0


@config
class PrefixDenoisingConfig(Scheme):
    """The beginning for the encoder, the rest for the decoder."""

    kind: Literal["prefix_denoising"]

    def check(self, context: Context, length: int) -> None:
        """It needs </s> and a token to begin with."""
        context.special.require(f"corruption '{self.kind}'", "separator", "pad")

    def bounds(self, context: Context, lengths: NDArray[np.int64]) -> Bounds:
        """All tokens but one, and </s>, on either side; a single one is the decoder's."""
        said = np.maximum(lengths, np.where(lengths == 1, 2, 1))
        return Bounds(np.maximum(lengths, 1), {DENOISING: said}, said)

    def corrupt(
        self, context: Context, sequences: Sequences, *, seed: int, epoch: int
    ) -> Corrupted:
        """Split each sequence in two."""
        end = context.special.separator
        tokens, begins = plain_tokens(context, sequences)
        lengths = np.diff(begins)
        keys = sequences.keys(seed, "prefix denoising", epoch)
        seen = np.minimum(1 + integers(keys, 0, _SPLIT, np.maximum(lengths - 1, 0)), lengths - 1)
        seen = np.maximum(seen, 0)
        of_encoder = np.arange(len(tokens)) - np.repeat(begins[:-1], lengths) < np.repeat(
            seen, lengths
        )
        inputs, offsets = _ended(tokens[of_encoder], seen, end)
        said, said_offsets = _ended(tokens[~of_encoder], lengths - seen, end)
        return denoised(sequences, inputs, offsets, Side(said, said_offsets), context.special.pad)


def _ended(
    tokens: NDArray[np.int64], lengths: NDArray[np.int64], end: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The tokens with ``end`` behind each sequence, and the new offsets."""
    offsets = offsets_of(lengths + 1)
    ended = np.full(offsets[-1], end, dtype=np.int64)
    inner = np.ones(len(ended), dtype=bool)
    inner[offsets[1:] - 1] = False
    ended[inner] = tokens
    return ended, offsets
