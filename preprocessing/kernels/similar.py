"""The loop of :mod:`preprocessing.corruption.similar`."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from preprocessing.compiled import compiled
from preprocessing.kernels.draws import bits_at, integer_at, uniform_at
from preprocessing.kernels.picking import INT64, OUT, UINT8, UINT64
from preprocessing.kernels.words import BEGINS, CONTINUES, FATE, RANDOM_TOKEN

COMPILED_WITH = {"draws.py": "af11e9b22636e97d"}

_INT32 = numba.types.Array(numba.int32, 1, "C", readonly=True)

_CANDIDATE = 4  # what a draw of a word's first place is taken for


@compiled(
    numba.void(
        OUT,
        UINT8,
        INT64,
        UINT64,
        numba.int64,
        numba.float64,
        numba.float64,
        UINT64,
        INT64,
        _INT32,
    )
)
def replace_words(
    tokens: NDArray[np.int64],
    chosen: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    keys: NDArray[np.uint64],
    size: int,
    similar_probability: float,
    random_probability: float,
    hashes: NDArray[np.uint64],
    similar_offsets: NDArray[np.int64],
    similar_pieces: NDArray[np.int32],
) -> None:
    """Put others in the place of the words that are ``chosen``, each as a whole, in place.

    Args:
        hashes: and the two behind it are the table of :mod:`preprocessing.tables.similar`.
    """
    for number in range(len(keys)):
        key, end = keys[number], offsets[number + 1]
        for place in range(offsets[number], end):
            if chosen[place] != BEGINS:
                continue
            index = place - offsets[number]
            word, pieces = np.uint64(0), 0
            while pieces == 0 or (place + pieces < end and chosen[place + pieces] == CONTINUES):
                word = bits_at(word, tokens[place + pieces], 0)
                pieces += 1
            fate = uniform_at(key, index, FATE)
            if fate >= similar_probability + random_probability:
                continue
            entry = np.searchsorted(hashes, word)
            if fate < similar_probability and entry < len(hashes) and hashes[entry] == word:
                first, last = similar_offsets[entry], similar_offsets[entry + 1]
                first += pieces * integer_at(key, index, _CANDIDATE, (last - first) // pieces)
                for piece in range(pieces):
                    tokens[place + piece] = similar_pieces[first + piece]
            else:
                for piece in range(pieces):
                    tokens[place + piece] = integer_at(key, index + piece, RANDOM_TOKEN, size)
