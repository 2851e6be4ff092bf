"""The loop of :mod:`preprocessing.packing`."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from preprocessing.compiled import compiled
from preprocessing.kernels.picking import INT64

_ROW_BITS = 32


@compiled(numba.int64[::1](INT64, numba.int64, INT64, numba.int64))
def best_fit(
    lengths: NDArray[np.int64], length: int, others: NDArray[np.int64], other_length: int
) -> NDArray[np.int64]:
    """The row of each sequence ``[sequences]``, entered in the order given.

    Args:
        lengths, length: of the sequences and of a row on the side that says which row is fuller.
        others, other_length: those of the other side, where a sequence has to fit, too.
    """
    count = len(lengths)
    row_of = np.empty(count, np.int64)
    free_beside = np.full(count, other_length, np.int64)
    smallest = smallest_beside = np.int64(1) << 62
    for number in range(count):
        smallest = min(smallest, lengths[number])
        smallest_beside = min(smallest_beside, others[number])
    rows = 0
    # Open rows by their free tokens, among equals by age: free tokens << 32 | row, ascending.
    is_open, num_open = np.empty(count, np.int64), 0
    for number in range(count):
        size, beside = lengths[number], others[number]
        low, high = 0, num_open
        while low < high:
            middle = (low + high) >> 1
            if is_open[middle] < size << _ROW_BITS:
                low = middle + 1
            else:
                high = middle
        found = low
        while found < num_open and free_beside[is_open[found] & 0xFFFFFFFF] < beside:
            found += 1
        if found == num_open:
            row, free = rows, length
            rows += 1
            num_open += 1
        else:
            row, free = is_open[found] & 0xFFFFFFFF, is_open[found] >> _ROW_BITS
        row_of[number] = row
        free_beside[row] -= beside
        free -= size
        if free < smallest or free_beside[row] < smallest_beside:  # nothing more fits
            num_open -= 1
            for place in range(found, num_open):
                is_open[place] = is_open[place + 1]
            continue
        entry = free << _ROW_BITS | row
        while found > 0 and is_open[found - 1] > entry:
            is_open[found] = is_open[found - 1]
            found -= 1
        is_open[found] = entry
    return row_of
