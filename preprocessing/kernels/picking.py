"""Compiled parts that schemes share: choosing places by keyed draws."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from preprocessing.compiled import compiled
from preprocessing.kernels.draws import bits_at

COMPILED_WITH = {"draws.py": "af11e9b22636e97d"}

INT64 = numba.types.Array(numba.int64, 1, "C", readonly=True)
UINT64 = numba.types.Array(numba.uint64, 1, "C", readonly=True)
UINT8 = numba.types.Array(numba.uint8, 1, "C", readonly=True)
OUT = numba.int64[::1]


@compiled(numba.uint64(numba.uint64[::1], numba.int64, numba.int64))
def smallest(values: NDArray[np.uint64], size: int, rank: int) -> np.uint64:
    """The value of a rank (from 0) among the first ``size``, which change places (Hoare)."""
    low, high = 0, size - 1
    while low < high:
        pivot = values[(low + high) >> 1]
        left, right = low, high
        while left <= right:
            while values[left] < pivot:
                left += 1
            while values[right] > pivot:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                left += 1
                right -= 1
        if rank <= right:
            high = right
        elif rank >= left:
            low = left
        else:
            break
    return np.uint64(values[rank])


@compiled(
    numba.int64(
        numba.uint64, OUT, numba.int64, numba.int64, numba.int64, numba.uint64[::1], numba.int64
    )
)
def choose(
    key: np.uint64,
    places: NDArray[np.int64],
    num_places: int,
    wanted: int,
    draw: int,
    scratch: NDArray[np.uint64],
    base: int,
) -> int:
    """Keep ``wanted`` of the first ``num_places`` places, those with the smallest draws.

    The draw of a place is that of the index ``place - base``. ``places`` holds the chosen ones
    afterwards, in the order they had; ``scratch`` has room for twice as many draws.

    Returns:
        How many there are: ``wanted``, or all.
    """
    if num_places <= wanted:
        return num_places
    if wanted <= 0:
        return 0
    for index in range(num_places):
        scratch[index] = bits_at(key, places[index] - base, draw) >> np.uint64(11)
    # Draws are uniform, so that the smallest ones are below a bound that few others are below.
    share = (wanted + 4.0 * np.sqrt(np.float64(wanted)) + 4.0) / num_places
    bound = np.uint64(min(share, 1.0) * 2.0**53)
    below = 0
    for index in range(num_places):
        scratch[num_places + below] = scratch[index]
        below += scratch[index] < bound
    if below < wanted:
        below = num_places
        scratch[num_places : 2 * num_places] = scratch[:num_places]
    largest = smallest(scratch[num_places:], below, wanted - 1)
    kept = 0
    for index in range(num_places):
        places[kept] = places[index]
        kept += scratch[index] <= largest and kept < wanted
    return kept
