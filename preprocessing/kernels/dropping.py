"""The loops of :mod:`preprocessing.corruption.dropping`."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from preprocessing.compiled import compiled
from preprocessing.kernels.picking import INT64, OUT, UINT8, UINT64, choose
from preprocessing.kernels.sequences import is_in, longest
from preprocessing.marks import ENTITY, IN_ENTITY, IN_PHRASE, PHRASE, SENTENCE, WORD

COMPILED_WITH = {"picking.py": "010a19a602c1e544", "sequences.py": "6586db01de20f947"}

_CHOOSE = 0  # what the draws of a place are taken for


@compiled(numba.int64(INT64, INT64, UINT64, INT64, INT64, OUT))
def choose_kept(
    tokens: NDArray[np.int64],
    offsets: NDArray[np.int64],
    keys: NDArray[np.uint64],
    counts: NDArray[np.int64],
    reserved: NDArray[np.int64],
    kept: NDArray[np.int64],
) -> int:
    """List the places that stay; each sequence loses ``counts`` plain tokens.

    Returns:
        The first sequence that has too few of them, or -1.
    """
    most = longest(offsets)
    places, scratch = np.empty(most + 1, np.int64), np.empty(2 * most, np.uint64)
    found = 0
    for number in range(len(keys)):
        begin, end = offsets[number], offsets[number + 1]
        plain = 0
        for place in range(begin, end):
            places[plain] = place
            plain += not is_in(reserved, tokens[place])
        if plain < counts[number]:
            return number
        dropped = choose(keys[number], places, plain, counts[number], _CHOOSE, scratch, begin)
        places[dropped] = end
        turn = 0
        for place in range(begin, end):
            if place == places[turn]:
                turn += 1
            else:
                kept[found] = place
                found += 1
    return -1


@compiled(numba.uint8[::1](UINT8, INT64, INT64, INT64, INT64))
def move_marks(
    marks: NDArray[np.uint8],
    tokens: NDArray[np.int64],
    offsets: NDArray[np.int64],
    reserved: NDArray[np.int64],
    kept: NDArray[np.int64],
) -> NDArray[np.uint8]:
    """The marks of the tokens that stay; a lost beginning passes to what goes on with it."""
    moved = np.empty(len(kept), np.uint8)
    index = 0
    for number in range(len(offsets) - 1):
        lost = 0
        for place in range(offsets[number], offsets[number + 1]):
            own = int(marks[place])
            if is_in(reserved, tokens[place]):
                lost = 0
            lost &= (
                (0 if own & WORD else WORD)
                | (0 if own & SENTENCE else SENTENCE)
                | (PHRASE if own & IN_PHRASE else 0)
                | (ENTITY if own & IN_ENTITY else 0)
            )
            if index == len(kept) or kept[index] != place:
                lost |= own & (WORD | SENTENCE | PHRASE | ENTITY)
                continue
            if lost & PHRASE:
                own &= ~IN_PHRASE
            if lost & ENTITY:
                own &= ~IN_ENTITY
            moved[index] = own | lost
            lost = 0
            index += 1
    return moved
