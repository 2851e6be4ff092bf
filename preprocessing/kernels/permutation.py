"""The loops of :mod:`preprocessing.corruption.permutation`."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from preprocessing.compiled import compiled
from preprocessing.kernels.draws import bits_at, integer_at, uniform_at
from preprocessing.kernels.picking import INT64, OUT, UINT8, UINT64, choose
from preprocessing.kernels.sequences import longest
from preprocessing.marks import WORD

COMPILED_WITH = {
    "draws.py": "af11e9b22636e97d",
    "picking.py": "010a19a602c1e544",
    "sequences.py": "6586db01de20f947",
}

_SPAN, _LEFT, _SINGLE, _RANK = 0, 1, 2, 3  # what the draws of a place are taken for
_FLAGS = numba.boolean[::1]


@compiled(
    numba.int64(
        numba.uint64,
        _FLAGS,
        numba.int64,
        numba.int64,
        numba.boolean,
        numba.int64,
        numba.int64,
        numba.int64,
        _FLAGS,
    )
)
def _pick_spans(
    key: np.uint64,
    starts: NDArray[np.bool_],
    low: int,
    high: int,
    backward: bool,
    goal: int,
    context: int,
    max_span: int,
    picked: NDArray[np.bool_],
) -> int:
    """Walk over the places ``[low, high)`` of a sequence and pick spans; returns the picks."""
    whole = 0.0
    for length in range(1, max_span + 1):
        whole += 1.0 / length
    size, at, found = high - low, 0, 0
    step = -1 if backward else 1
    origin = high - 1 if backward else low
    while at < size and found < goal:
        length, rest = 1, uniform_at(key, low + at, _SPAN) * whole
        while length < max_span and rest >= 1.0 / length:
            rest -= 1.0 / length
            length += 1
        length = min(length, goal - found)
        around = length * context
        left = integer_at(key, low + at, _LEFT, around)
        begin = at + left
        while begin < size and not starts[origin + step * begin]:
            begin += 1
        end = begin + length
        if end >= size:
            break
        for place in range(begin, end):
            picked[origin + step * place] = True
        found += length
        at = end + around - left
    return found


@compiled(
    numba.int64(
        INT64,
        UINT8,
        INT64,
        INT64,
        UINT64,
        INT64,
        INT64,
        numba.int64,
        numba.int64,
        OUT,
        OUT,
    )
)
def choose_targets(
    tokens: NDArray[np.int64],
    marks: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    backward: NDArray[np.int64],
    keys: NDArray[np.uint64],
    picks: NDArray[np.int64],
    special: NDArray[np.int64],
    context: int,
    max_span: int,
    ranks: NDArray[np.int64],
    targets: NDArray[np.int64],
) -> int:
    """Rank every token and list the targets; returns how many there are.

    Args:
        special: start, separator, padding, and the end of a document, which is a plain token.
    """
    most = longest(offsets)
    plain, starts = np.empty(most, np.bool_), np.empty(most, np.bool_)
    picked, places = np.empty(most, np.bool_), np.empty(most, np.int64)
    scratch = np.empty(2 * most, np.uint64)
    found = 0
    for number in range(len(keys)):
        begin, key = offsets[number], keys[number]
        size = offsets[number + 1] - begin
        for place in range(size):
            token = tokens[begin + place]
            plain[place] = token != special[0] and token != special[1] and token != special[2]
            starts[place] = (
                marks[begin + place] & WORD != 0 or not plain[place] or token == special[3]
            )
            picked[place] = False
        middle, base, wanted = size // 2, 0, picks[number]
        for half in range(2):
            low, high = (middle, size) if half else (0, middle)
            goal = wanted if half else (wanted + 1) // 2
            if low == 0:  # nothing stands before it: a token that is seen has to be left
                goal = min(goal, max(0, np.sum(plain[:high]) - 1))
            goal = min(goal, high - low)
            wanted -= goal

            count = _pick_spans(
                key, starts, low, high, backward[number] != 0, goal, context, max_span, picked
            )
            others = 0
            for place in range(low, high):
                places[others] = place
                others += not picked[place]
            others = choose(key, places, others, goal - count, _SINGLE, scratch, 0)
            for turn in range(others):
                picked[places[turn]] = True

            ordered = 0
            for place in range(low, high):
                ranks[begin + place] = base
                if plain[place] and not picked[place]:
                    continue
                if plain[place]:
                    targets[found] = begin + place
                    found += 1
                places[ordered] = place
                scratch[ordered] = bits_at(key, place, _RANK)
                ordered += 1
            base += ordered < high - low  # the rank of those that are in no order
            for turn in range(ordered):
                rank = base
                for other in range(ordered):
                    rank += scratch[other] < scratch[turn]
                ranks[begin + places[turn]] = rank
            base += ordered
    return found
