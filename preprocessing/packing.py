"""Whole sequences into rows of fixed length: best fit, longest first, within fixed windows.

A pure function of the lengths. The rows of a window stand together, so what packing needs in
memory does not grow with the corpus.

    >>> pack_rows(np.array([5, 3, 7, 1]), length=8)
    [[2, 3], [0, 1]]
"""

from __future__ import annotations

import bisect

import numpy as np
from numpy.typing import NDArray

WINDOW = 8192


def pack_rows(lengths: NDArray[np.int64], length: int, window: int = WINDOW) -> list[list[int]]:
    """Indices of the sequences of each row; rows and sequences in a fixed order.

    Best fit: a sequence goes into the fullest row it fits, among equals into the oldest.
    """
    if len(lengths) and int(lengths.max()) > length:
        raise ValueError(f"a sequence of {int(lengths.max())} tokens does not fit {length}")
    rows: list[list[int]] = []
    for begin in range(0, len(lengths), window):
        own = lengths[begin : begin + window]
        order = np.argsort(-own, kind="stable")
        packed: list[list[int]] = []
        room: list[tuple[int, int]] = []  # (free tokens, row), ascending
        for index in order.tolist():
            size = int(own[index])
            found = bisect.bisect_left(room, (size, -1))
            if found == len(room):
                packed.append([])
                free, row = length, len(packed) - 1
            else:
                free, row = room.pop(found)
            packed[row].append(begin + index)
            if free > size:
                bisect.insort(room, (free - size, row))
        rows += packed
    return rows
