"""The loop of :mod:`preprocessing.corruption.smoothed`."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

from preprocessing.compiled import compiled
from preprocessing.kernels.draws import uniform_at
from preprocessing.kernels.ngrams import FLOATS
from preprocessing.kernels.picking import INT64, UINT64, smallest
from preprocessing.kernels.sequences import longest
from preprocessing.kernels.words import BEGINS

COMPILED_WITH = {
    "draws.py": "af11e9b22636e97d",
    "picking.py": "010a19a602c1e544",
    "sequences.py": "6586db01de20f947",
}

_ARRIVAL = 0  # what the draws of a place are taken for


@compiled(numba.void(INT64, INT64, UINT64, INT64, FLOATS, numba.uint8[::1]))
def choose_weighted(
    tokens: NDArray[np.int64],
    offsets: NDArray[np.int64],
    keys: NDArray[np.uint64],
    counts: NDArray[np.int64],
    weights: NDArray[np.float64],
    chosen: NDArray[np.uint8],
) -> None:
    """Choose ``counts`` tokens of each sequence, one after the other by their weights.

    Every token arrives after an exponential time whose rate is its weight, and the first ones are
    chosen: the same as drawing them in turn from what is left.

    Args:
        weights: of each id, ``[size]``; tokens of weight 0 are never chosen.
        chosen: zeros ``[tokens]``; becomes ``BEGINS`` at chosen tokens.
    """
    most = longest(offsets)
    places, times, scratch = np.empty(most, np.int64), np.empty(most), np.empty(most)
    for number in range(len(keys)):
        begin, end, key = offsets[number], offsets[number + 1], keys[number]
        plain = 0
        for place in range(begin, end):
            weight = weights[tokens[place]]
            if weight > 0:
                places[plain] = place
                time = -math.log1p(-uniform_at(key, place - begin, _ARRIVAL)) / weight
                times[plain] = scratch[plain] = time
                plain += 1
        wanted = min(plain, counts[number])
        if wanted == 0:
            continue
        # Numbers that are not negative are in the order of their bits.
        last = smallest(scratch.view(np.uint64), plain, wanted - 1)
        for index in range(plain):
            if times.view(np.uint64)[index] <= last and wanted > 0:
                chosen[places[index]] = BEGINS
                wanted -= 1
