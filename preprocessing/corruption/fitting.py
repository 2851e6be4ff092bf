"""How long sequences may be cut, so that what a scheme makes of them fits a row."""

from __future__ import annotations

import numpy as np

from preprocessing.corruption.base import Context, Scheme


def longest_fitting(
    scheme: Scheme, context: Context, length: int, decoder_length: int | None = None
) -> int:
    """Tokens of the longest sequence whose inputs, and decoder's inputs, surely fit.

    Args:
        length: tokens of a row.
        decoder_length: tokens of a row of the decoder's; None where they do not matter.

    Returns:
        0 where not even a single token fits.
    """
    most = length
    while True:
        most *= 4
        limits = scheme.bounds(context, np.arange(1, most + 1))
        fits = limits.inputs <= length
        if limits.decoder is not None and decoder_length is not None:
            fits &= limits.decoder <= decoder_length
        if not fits[-1]:
            return int(np.flatnonzero(fits)[-1]) + 1 if fits.any() else 0
