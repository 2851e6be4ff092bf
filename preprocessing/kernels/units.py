"""The loop of :mod:`preprocessing.corruption.units`."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from preprocessing.compiled import compiled
from preprocessing.kernels.draws import integer_at, uniform_at
from preprocessing.kernels.picking import INT64, OUT, UINT8, UINT64
from preprocessing.kernels.sequences import is_in, longest
from preprocessing.marks import ENTITY, IN_ENTITY, IN_PHRASE, PHRASE, WORD

COMPILED_WITH = {"draws.py": "af11e9b22636e97d", "sequences.py": "6586db01de20f947"}

_DRAW, _RANDOM_TOKEN = 0, 1  # what the draws of a place are taken for
TOKENS, WORDS, PHRASES, ENTITIES = 0, 1, 2, 3
"""What the units of a sequence are."""


@compiled(
    numba.int64(INT64, UINT8, numba.int64, numba.int64, numba.int64, numba.int64, INT64, OUT, OUT)
)
def _find_units(
    tokens: NDArray[np.int64],
    marks: NDArray[np.uint8],
    begin: int,
    second: int,
    end: int,
    level: int,
    reserved: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
) -> int:
    """Write where the units of one sequence begin and end; returns how many there are."""
    start, inside = (ENTITY, IN_ENTITY) if level == ENTITIES else (PHRASE, IN_PHRASE)
    count = 0
    going = False  # the token before belongs to a unit that may go on
    spanned = False  # and that unit is a phrase or an entity
    for place in range(begin, end):
        if is_in(reserved, tokens[place]):
            going = False
            continue
        mark = np.uint8(WORD) if level == TOKENS else marks[place]
        new = not going or place == second
        if level >= PHRASES and mark & (start | inside):
            new |= (mark & start) != 0 or not spanned
            spanned = True
        else:
            new |= (mark & WORD) != 0 or spanned
            spanned = False
        if new:
            starts[count] = place
            count += 1
        stops[count - 1] = place + 1
        going = True
    return count


@compiled(
    numba.int64(
        OUT, INT64, UINT8, INT64, INT64, UINT64, INT64, INT64, INT64, numba.int64, numba.int64,
        numba.float64, numba.float64, numba.float64, OUT,
    )
)  # fmt: skip
def mask_units(
    tokens: NDArray[np.int64],
    original: NDArray[np.int64],
    marks: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    first_lengths: NDArray[np.int64],
    keys: NDArray[np.uint64],
    levels: NDArray[np.int64],
    most: NDArray[np.int64],
    reserved: NDArray[np.int64],
    mask: int,
    size: int,
    share: float,
    kept: float,
    kept_or_random: float,
    targets: NDArray[np.int64],
) -> int:
    """Corrupt ``tokens`` in place and list the chosen places; returns how many there are."""
    room = longest(offsets)
    starts, stops = np.empty(room, np.int64), np.empty(room, np.int64)
    draws = np.empty(room, np.float64)
    found = 0
    for number in range(len(keys)):
        begin, end, key = offsets[number], offsets[number + 1], keys[number]
        second = begin + first_lengths[number]
        count = _find_units(
            original, marks, begin, second, end, levels[number], reserved, starts, stops
        )
        chosen, total = 0, 0
        for unit in range(count):
            draw = uniform_at(key, starts[unit] - begin, _DRAW)
            if draw <= share:
                starts[chosen], stops[chosen], draws[chosen] = starts[unit], stops[unit], draw
                total += stops[unit] - starts[unit]
                chosen += 1
        while total > most[number]:
            last = np.argmax(draws[:chosen])
            total -= stops[last] - starts[last]
            draws[last], stops[last] = -1.0, starts[last]  # nothing is left of it
        for unit in range(chosen):
            for place in range(starts[unit], stops[unit]):
                targets[found] = place
                found += 1
                fate = uniform_at(key, place - begin, _DRAW)
                if place == starts[unit]:
                    fate /= share
                if fate > kept_or_random:
                    tokens[place] = mask
                elif fate > kept:
                    tokens[place] = 1 + integer_at(key, place - begin, _RANDOM_TOKEN, size - 1)
    return found
