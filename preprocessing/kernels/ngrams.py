"""The choice of words and runs of words, for :mod:`preprocessing.corruption.ngrams` and others."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from preprocessing.compiled import compiled
from preprocessing.kernels.draws import integer_at, uniform_at
from preprocessing.kernels.picking import INT64, UINT8, UINT64
from preprocessing.kernels.sequences import longest
from preprocessing.kernels.words import BEGINS, CONTINUES, find_words

COMPILED_WITH = {
    "draws.py": "af11e9b22636e97d",
    "sequences.py": "6586db01de20f947",
    "words.py": "3aad097d1847d8f9",
}

FLOATS = numba.types.Array(numba.float64, 1, "C", readonly=True)

_ORDER, _NUM_WORDS = 0, 3  # what the draws of a turn are taken for


@compiled(
    numba.void(
        INT64, UINT8, INT64, INT64, UINT64, INT64, numba.float64, FLOATS, INT64, numba.uint8[::1]
    )
)
def choose_ngrams(
    tokens: NDArray[np.int64],
    marks: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    first_lengths: NDArray[np.int64],
    keys: NDArray[np.uint64],
    counts: NDArray[np.int64],
    word_share: float,
    cumulative: NDArray[np.float64],
    reserved: NDArray[np.int64],
    chosen: NDArray[np.uint8],
) -> None:
    """Choose runs of adjacent words until a sequence's tokens, or its share of words, are spent.

    Words take their turns in keyed order. The one whose turn it is begins a run of n words, n as
    drawn; a run that does not fit what is left is shortened word by word, and given up if not even
    its first word fits or if it touches words that are chosen already.

    Args:
        counts: tokens to choose at most, ``[sequences]``.
        word_share: of a sequence's words, at most so many (rounded, but at least one).
        cumulative: sums of the weights of 1, 2, ... words.
        chosen: zeros ``[tokens]``; becomes ``BEGINS`` and ``CONTINUES`` at chosen words.
    """
    most = longest(offsets)
    starts, stops, order = np.empty(most, np.int64), np.empty(most, np.int64), np.arange(most)
    for number in range(len(keys)):
        begin, end, key = offsets[number], offsets[number + 1], keys[number]
        second = begin + first_lengths[number]
        count = find_words(tokens, marks, begin, second, end, reserved, starts, stops)
        tokens_left, words_left = counts[number], max(1, round(word_share * count))
        order[:count] = np.arange(count)
        for turn in range(count):
            if tokens_left == 0 or words_left == 0:
                break
            other = turn + integer_at(key, turn, _ORDER, count - turn)
            first = order[other]
            order[other] = order[turn]
            longest_run = 1
            while (
                longest_run < len(cumulative)
                and first + longest_run < count
                and starts[first + longest_run] == stops[first + longest_run - 1]
                and starts[first + longest_run] != second
            ):
                longest_run += 1
            drawn = uniform_at(key, turn, _NUM_WORDS) * cumulative[longest_run - 1]
            num_words = 1
            while num_words < longest_run and drawn >= cumulative[num_words - 1]:
                num_words += 1
            while num_words > 0 and (
                num_words > words_left or stops[first + num_words - 1] - starts[first] > tokens_left
            ):
                num_words -= 1
            for word in range(first, first + num_words):
                if chosen[starts[word]]:
                    num_words = 0
            for word in range(first, first + num_words):
                chosen[starts[word]] = BEGINS
                chosen[starts[word] + 1 : stops[word]] = CONTINUES
                tokens_left -= stops[word] - starts[word]
                words_left -= 1
