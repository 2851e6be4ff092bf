"""Whole sequences into rows of fixed length: best fit, longest first, within fixed windows.

A pure function of the lengths. The rows of a window stand together, so what packing needs in
memory does not grow with the corpus.

    >>> pack_rows(np.array([5, 3, 7, 1]), length=8)
    [[2, 3], [0, 1]]

The rows of an encoder-decoder have two sides, and a sequence enters only where both fit:

    >>> pack_rows(np.array([5, 3, 7, 1]), length=8, decoder=(np.array([2, 9, 2, 2]), 10))
    [[1], [2, 3], [0]]

How good that is shows beside :func:`fewest_rows`, below which no packing can go.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WINDOW = 8192

Decoder = tuple[NDArray[np.int64], int]
"""Tokens of each sequence on the decoder's side ``[sequences]``, and tokens of a row there."""


def pack_rows(
    lengths: NDArray[np.int64],
    length: int,
    window: int = WINDOW,
    *,
    decoder: Decoder | None = None,
) -> list[list[int]]:
    """Indices of the sequences of each row; rows and sequences in a fixed order.

    Best fit: a sequence goes into the fullest row it fits, among equals into the oldest. Where
    there are two sides, the fuller one of a window says which row is fuller, and a sequence is as
    long as the larger one of its shares of a row.

    Raises:
        ValueError: a sequence is longer than a row.
    """
    from preprocessing.kernels.packing import best_fit

    others, other_length = (np.zeros_like(lengths), 1) if decoder is None else decoder
    _check(lengths, length)
    _check(others, other_length)
    rows: list[list[int]] = []
    for begin in range(0, len(lengths), window):
        own = slice(begin, begin + window)
        sides = [(lengths[own], length), (others[own], other_length)]
        shares = [sides[0][0] * other_length, sides[1][0] * length]
        if shares[1].sum() > shares[0].sum():
            sides.reverse()
        order = np.argsort(-np.maximum(*shares), kind="stable")
        (main, room), (beside, room_beside) = sides
        row_of = best_fit(main[order], room, beside[order], room_beside)
        by_row = order[np.argsort(row_of, kind="stable")] + begin
        ends = np.cumsum(np.bincount(row_of))[:-1]
        rows += [row.tolist() for row in np.split(by_row, ends)]
    return rows


def _check(lengths: NDArray[np.int64], length: int) -> None:
    if len(lengths) and int(lengths.max()) > length:
        raise ValueError(f"a sequence of {int(lengths.max())} tokens does not fit {length}")


def fewest_rows(lengths: NDArray[np.int64], length: int) -> int:
    """A number of rows below which sequences of these lengths cannot be packed.

    The bound L2 of Martello and Toth (1990, section 8.3): for every K up to half a row, sequences
    longer than ``length - K`` share a row with none of at least K tokens, those between half a row
    and that with none of their kind, and what is left beside these takes the others as if they
    could be cut. K = 0 gives the sum of all lengths over ``length``.
    """
    _check(lengths, length)
    counts = np.bincount(lengths, minlength=length + 1)
    number = np.concatenate([[0], np.cumsum(counts)])  # number[k]: sequences below k tokens
    tokens = np.concatenate([[0], np.cumsum(counts * np.arange(length + 1))])
    half = length // 2
    least = np.arange(half + 1)
    alone = number[length + 1] - number[length - least + 1]
    paired = number[length - least + 1] - number[half + 1]
    room = paired * length - (tokens[length - least + 1] - tokens[half + 1])
    rest = tokens[half + 1] - tokens[least] - room
    return int((alone + paired + np.maximum(0, -(-rest // length))).max())


def fill(lengths: NDArray[np.int64], length: int, num_rows: int) -> float:
    """The share of the tokens of some rows that are no padding."""
    return float(lengths.sum() / (num_rows * length)) if num_rows else 1.0
