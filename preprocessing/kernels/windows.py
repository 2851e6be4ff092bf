"""The loop of :mod:`preprocessing.corruption.windows`."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from preprocessing.compiled import compiled
from preprocessing.kernels.draws import integer_at, uniform_at
from preprocessing.kernels.ngrams import FLOATS
from preprocessing.kernels.picking import INT64, UINT8, UINT64
from preprocessing.kernels.sequences import longest
from preprocessing.kernels.words import BEGINS, CONTINUES, find_words

COMPILED_WITH = {
    "draws.py": "af11e9b22636e97d",
    "sequences.py": "6586db01de20f947",
    "words.py": "3aad097d1847d8f9",
}

_PLACE, _NUM_WORDS, _ORDER = 0, 3, 4  # what the draws of a window are taken for


@compiled(
    numba.void(
        INT64,
        UINT8,
        INT64,
        INT64,
        UINT64,
        INT64,
        numba.int64,
        FLOATS,
        numba.boolean,
        INT64,
        numba.uint8[::1],
    )
)
def choose_in_windows(
    tokens: NDArray[np.int64],
    marks: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    first_lengths: NDArray[np.int64],
    keys: NDArray[np.uint64],
    counts: NDArray[np.int64],
    window: int,
    cumulative: NDArray[np.float64],
    shuffle: bool,
    reserved: NDArray[np.int64],
    chosen: NDArray[np.uint8],
) -> None:
    """Choose a run of n words in each window of ``window * n``, and keep so many tokens of them.

    Args:
        counts: tokens to choose at most, ``[sequences]``.
        cumulative: sums of the weights of 1, 2, ... words.
        shuffle: whether what is kept is not the first runs, but any.
        chosen: zeros ``[tokens]``; becomes ``BEGINS`` and ``CONTINUES`` at chosen words.
    """
    most = longest(offsets)
    starts, stops = np.empty(most, np.int64), np.empty(most, np.int64)
    firsts, lasts = np.empty(most, np.int64), np.empty(most, np.int64)
    for number in range(len(keys)):
        begin, end, key = offsets[number], offsets[number + 1], keys[number]
        second = begin + first_lengths[number]
        count = find_words(tokens, marks, begin, second, end, reserved, starts, stops)
        runs = word = 0
        while word < count:
            drawn = uniform_at(key, runs, _NUM_WORDS) * cumulative[-1]
            num_words = 1
            while num_words < len(cumulative) and drawn >= cumulative[num_words - 1]:
                num_words += 1
            room = min(window * num_words, count - word)
            firsts[runs] = word + integer_at(key, runs, _PLACE, room)
            lasts[runs] = min(firsts[runs] + num_words, count)
            word = max(word + room, lasts[runs])
            runs += 1
        left = counts[number]
        for turn in range(runs):
            if shuffle:
                other = turn + integer_at(key, turn, _ORDER, runs - turn)
                firsts[turn], firsts[other] = firsts[other], firsts[turn]
                lasts[turn], lasts[other] = lasts[other], lasts[turn]
            for word in range(firsts[turn], lasts[turn]):
                if stops[word] - starts[word] <= left:
                    chosen[starts[word]] = BEGINS
                    chosen[starts[word] + 1 : stops[word]] = CONTINUES
                    left -= stops[word] - starts[word]
