"""The loop of :mod:`preprocessing.corruption.masked`."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from preprocessing.compiled import compiled
from preprocessing.kernels.draws import integer_at, uniform_at
from preprocessing.kernels.picking import INT64, OUT, UINT64, choose
from preprocessing.kernels.sequences import is_in, longest

COMPILED_WITH = {
    "draws.py": "af11e9b22636e97d",
    "picking.py": "010a19a602c1e544",
    "sequences.py": "6586db01de20f947",
}

_CHOOSE, _FATE, _RANDOM_TOKEN = 0, 1, 2  # what the draws of a place are taken for


@compiled(
    numba.int64(
        OUT,
        INT64,
        UINT64,
        INT64,
        INT64,
        numba.int64,
        numba.int64,
        INT64,
        numba.float64,
        numba.float64,
        OUT,
    )
)
def mask_tokens(
    tokens: NDArray[np.int64],
    offsets: NDArray[np.int64],
    keys: NDArray[np.uint64],
    counts: NDArray[np.int64],
    reserved: NDArray[np.int64],
    mask: int,
    size: int,
    never_drawn: NDArray[np.int64],
    mask_probability: float,
    random_probability: float,
    targets: NDArray[np.int64],
) -> int:
    """Corrupt ``tokens`` in place and list the chosen places; returns how many there are.

    Args:
        never_drawn: ids that no token becomes at random, ascending.
    """
    most = longest(offsets)
    places, scratch = np.empty(most, np.int64), np.empty(2 * most, np.uint64)
    found = 0
    for number in range(len(keys)):
        begin, end, key = offsets[number], offsets[number + 1], keys[number]
        plain = 0
        for place in range(begin, end):
            places[plain] = place
            plain += not is_in(reserved, tokens[place])
        chosen = choose(key, places, plain, counts[number], _CHOOSE, scratch, begin)
        for turn in range(chosen):
            place = places[turn]
            targets[found] = place
            found += 1
            fate = uniform_at(key, place - begin, _FATE)
            if fate < mask_probability:
                tokens[place] = mask
            elif fate < mask_probability + random_probability:
                drawn = integer_at(key, place - begin, _RANDOM_TOKEN, size - len(never_drawn))
                for one in never_drawn:
                    drawn += drawn >= one
                tokens[place] = drawn
    return found
