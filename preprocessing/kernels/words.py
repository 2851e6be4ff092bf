"""Compiled parts that schemes share: the words of a sequence, and what becomes of chosen tokens."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from preprocessing.compiled import compiled
from preprocessing.kernels.draws import integer_at, uniform_at
from preprocessing.kernels.picking import INT64, OUT, UINT8, UINT64
from preprocessing.kernels.sequences import is_in
from preprocessing.marks import WORD

COMPILED_WITH = {"sequences.py": "6586db01de20f947", "draws.py": "af11e9b22636e97d"}

FATE, RANDOM_TOKEN = 1, 2  # what the draws of a place are taken for; others are the choosers'
BEGINS, CONTINUES = 1, 2
"""What ``chosen`` says of a token: it begins a chosen word; it goes on with one."""


@compiled(
    numba.int64(INT64, UINT8, numba.int64, numba.int64, numba.int64, INT64, OUT, OUT),
)
def find_words(
    tokens: NDArray[np.int64],
    marks: NDArray[np.uint8],
    begin: int,
    second: int,
    end: int,
    reserved: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
) -> int:
    """Write where the words of one sequence begin and end; returns how many there are.

    A word is a marked token and what follows up to the next one, a special token or the end of a
    segment. What stands first behind such an end begins a word in any case.

    Args:
        begin: place of the sequence's first token.
        second: place of the second segment's first token; ``end`` where there is only one.
        end: place behind the sequence's last token.
    """
    count = 0
    inside = False
    for place in range(begin, end):
        if is_in(reserved, tokens[place]):
            inside = False
            continue
        if not inside or place == second or marks[place] & WORD:
            starts[count] = place
            count += 1
            inside = True
        stops[count - 1] = place + 1
    return count


@compiled(
    numba.void(OUT, INT64, INT64, UINT64, numba.int64, numba.int64, numba.float64, numba.float64)
)
def mask_places(
    tokens: NDArray[np.int64],
    places: NDArray[np.int64],
    offsets: NDArray[np.int64],
    keys: NDArray[np.uint64],
    mask: int,
    size: int,
    mask_probability: float,
    random_probability: float,
) -> None:
    """Decide the fate of the tokens at ascending places, each by itself, in place."""
    number = 0
    for place in places:
        while place >= offsets[number + 1]:
            number += 1
        index = place - offsets[number]
        fate = uniform_at(keys[number], index, FATE)
        if fate < mask_probability:
            tokens[place] = mask
        elif fate < mask_probability + random_probability:
            tokens[place] = integer_at(keys[number], index, RANDOM_TOKEN, size)
