"""The loop of :mod:`preprocessing.corruption.unilm`."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from preprocessing.compiled import compiled
from preprocessing.kernels.draws import bits_at, uniform_at
from preprocessing.kernels.picking import INT64, UINT64, choose
from preprocessing.kernels.sequences import is_in, longest

COMPILED_WITH = {
    "draws.py": "af11e9b22636e97d",
    "picking.py": "010a19a602c1e544",
    "sequences.py": "6586db01de20f947",
}

_VISIT, _SIZE = 0, 3  # what the draws of a place are taken for; others are in words.py


@compiled(numba.void(INT64, INT64, UINT64, INT64, INT64, numba.float64, numba.uint8[::1]))
def choose_ngrams(
    tokens: NDArray[np.int64],
    offsets: NDArray[np.int64],
    keys: NDArray[np.uint64],
    counts: NDArray[np.int64],
    reserved: NDArray[np.int64],
    ngram_probability: float,
    chosen: NDArray[np.uint8],
) -> None:
    """Set ``chosen`` to 1 at ``counts`` tokens of each sequence, or at all plain ones."""
    most = longest(offsets)
    places, scratch = np.empty(most, np.int64), np.empty(2 * most, np.uint64)
    plain = np.empty(most, np.bool_)
    for number in range(len(keys)):
        begin, key = offsets[number], keys[number]
        length = offsets[number + 1] - begin
        num_plain = 0
        for place in range(length):
            plain[place] = not is_in(reserved, tokens[begin + place])
            places[num_plain] = place
            num_plain += plain[place]
        # A place that is visited is chosen afterwards, so as many visits as targets suffice.
        wanted = choose(key, places, num_plain, counts[number], _VISIT, scratch, 0)
        for visit in range(wanted):
            scratch[visit] = bits_at(key, places[visit], _VISIT) >> np.uint64(11)
        done = 0
        for visit in np.argsort(scratch[:wanted], kind="mergesort"):
            first = places[visit]
            if chosen[begin + first]:
                continue
            draw = uniform_at(key, first, _SIZE)
            size = 1 + (draw < ngram_probability) + (draw < ngram_probability / 2)
            for place in range(first, min(first + size, length)):
                if not plain[place] or done == wanted:
                    break
                done += chosen[begin + place] == 0
                chosen[begin + place] = 1
