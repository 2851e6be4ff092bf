"""What the encoder-decoder schemes share: a decoder that is told what it has said so far.

to be said     x y </s>
its inputs     <start> x y        said so far; the place of <start> predicts x
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from preprocessing.corruption.base import Context, Corrupted, Sequences, Side, Targets

DENOISING = "denoising"
"""The objective that predicts what the decoder is to say."""


def plain_tokens(
    context: Context, sequences: Sequences
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The tokens without special ones, and their offsets ``[sequences + 1]``."""
    special = context.special
    reserved = [special.start, special.separator, special.pad, special.end]
    plain = ~np.isin(sequences.tokens, reserved)
    return sequences.tokens[plain], offsets_of(plain)[sequences.offsets]


def offsets_of(lengths: NDArray[np.int64] | NDArray[np.bool_]) -> NDArray[np.int64]:
    """Where sequences of some lengths begin, and the last one ends, ``[sequences + 1]``."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def denoised(
    sequences: Sequences,
    tokens: NDArray[np.int64],
    offsets: NDArray[np.int64],
    said: Side,
    start: int,
) -> Corrupted:
    """The encoder sees ``tokens``, the decoder is to say ``said`` from a ``start`` token on.

    Inputs are of one segment and have no marks, since tokens have come and gone.
    """
    heard = np.empty_like(said.tokens)
    heard[1:] = said.tokens[:-1]
    heard[said.offsets[:-1]] = start
    inputs = replace(
        sequences,
        tokens=tokens,
        offsets=offsets,
        first_lengths=np.diff(offsets),
        marks=np.zeros(0, dtype=np.uint8),
    )
    targets = Targets(np.arange(len(heard)), said.tokens, of_decoder=True)
    return Corrupted(inputs, {DENOISING: targets}, decoder=Side(heard, said.offsets))
