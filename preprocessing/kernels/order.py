"""The loop of :class:`preprocessing.order.Order`."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from preprocessing.compiled import compiled
from preprocessing.kernels.draws import mix
from preprocessing.kernels.picking import INT64

COMPILED_WITH = {"draws.py": "af11e9b22636e97d"}

_ROUNDS = 8


@compiled(numba.int64[::1](numba.int64, numba.uint64, INT64))
def permute(size: int, key: np.uint64, positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where a keyed permutation of [0, size) sends the given positions ``[n]``."""
    width = 0
    while (size - 1) >> width:
        width += 1
    half = np.uint64(max(1, (width + 1) // 2))
    mask = (np.uint64(1) << half) - np.uint64(1)
    keys = np.empty(_ROUNDS, np.uint64)
    for number in range(_ROUNDS):
        keys[number] = mix(key ^ np.uint64(number))
    items = np.empty(len(positions), np.int64)
    for index in range(len(positions)):
        value = np.uint64(positions[index])
        while True:
            left, right = value >> half, value & mask
            for number in range(_ROUNDS):
                left, right = right, left ^ (mix(mix(right ^ keys[number])) & mask)
            value = (left << half) | right
            if value < np.uint64(size):
                break
        items[index] = np.int64(value)
    return items
