"""The loop of :mod:`preprocessing.corruption.spans`."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from preprocessing.compiled import compiled
from preprocessing.kernels.draws import integer_at, uniform_at
from preprocessing.kernels.picking import INT64, OUT, UINT8, UINT64
from preprocessing.kernels.sequences import is_in, longest
from preprocessing.marks import WORD

COMPILED_WITH = {"draws.py": "af11e9b22636e97d", "sequences.py": "6586db01de20f947"}

_LENGTH, _ANCHOR = 0, 1  # what the draws of a try are taken for
_FATE, _RANDOM_TOKEN = 2, 3  # and those of a place
_SPECIAL, _INSIDE, _WORD, _EDGE = 0, 1, 2, 3  # an edge begins a word, and nothing goes on before it
_FLOATS = numba.types.Array(numba.float64, 1, "C", readonly=True)
_KINDS = numba.uint8[::1]


@compiled(
    numba.int64(INT64, UINT8, numba.int64, numba.int64, numba.int64, INT64, _KINDS, OUT),
)
def _look_at(
    tokens: NDArray[np.int64],
    marks: NDArray[np.uint8],
    begin: int,
    second: int,
    end: int,
    reserved: NDArray[np.int64],
    kinds: NDArray[np.uint8],
    plain: NDArray[np.int64],
) -> int:
    """Tell the kind of each token of a sequence, and list the plain ones by their indices.

    Behind the last token there is an edge.
    """
    count = 0
    for place in range(begin, end):
        index = place - begin
        if is_in(reserved, tokens[place]):
            kinds[index] = _SPECIAL
            continue
        if index == 0 or kinds[index - 1] == _SPECIAL or place == second:
            kinds[index] = _EDGE
        else:
            kinds[index] = _WORD if marks[place] & WORD else _INSIDE
        plain[count] = index
        count += 1
    kinds[end - begin] = _EDGE
    return count


@compiled(
    numba.void(numba.uint64, _KINDS, OUT, numba.int64, numba.int64, _FLOATS, numba.boolean[::1])
)
def _hide(
    key: np.uint64,
    kinds: NDArray[np.uint8],
    plain: NDArray[np.int64],
    num_plain: int,
    wanted: int,
    length_sums: NDArray[np.float64],
    hidden: NDArray[np.bool_],
) -> None:
    """Hide spans of whole words until ``wanted`` tokens are hidden."""
    trial, count = 0, 0
    while count < wanted:
        words = 1 + np.searchsorted(length_sums, uniform_at(key, trial, _LENGTH), side="right")
        index = plain[integer_at(key, trial, _ANCHOR, num_plain)]
        trial += 1
        if hidden[index]:
            continue
        while kinds[index] == _INSIDE:
            index -= 1
        while count < wanted:
            count += not hidden[index]
            hidden[index] = True
            index += 1
            if kinds[index] == _WORD:
                words -= 1
            if words == 0 or kinds[index] == _SPECIAL or kinds[index] == _EDGE:
                break


@compiled(
    numba.types.UniTuple(numba.int64, 2)(
        OUT, INT64, UINT8, INT64, INT64, UINT64, INT64, numba.int64, numba.float64, numba.float64,
        numba.float64, _FLOATS, INT64, numba.int64, OUT, numba.int64[:, ::1],
    )
)  # fmt: skip
def mask_spans(
    tokens: NDArray[np.int64],
    original: NDArray[np.int64],
    marks: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    first_lengths: NDArray[np.int64],
    keys: NDArray[np.uint64],
    reserved: NDArray[np.int64],
    mask: int,
    share: float,
    mask_probability: float,
    random_probability: float,
    length_sums: NDArray[np.float64],
    frequency_sums: NDArray[np.int64],
    max_index: int,
    places: NDArray[np.int64],
    pairs: NDArray[np.int64],
) -> tuple[int, int]:
    """Corrupt ``tokens`` in place; list the places, and what is asked of the spans' boundaries.

    Args:
        pairs: ``[4, targets]``: left and right place, index in the span, label.

    Returns:
        How many places there are, and how many pairs.
    """
    most = longest(offsets)
    kinds, hidden = np.empty(most + 1, np.uint8), np.empty(most + 1, np.bool_)
    plain = np.empty(most, np.int64)
    num_places, num_pairs = 0, 0
    for number in range(len(keys)):
        begin, end, key = offsets[number], offsets[number + 1], keys[number]
        second = begin + first_lengths[number]
        num_plain = _look_at(original, marks, begin, second, end, reserved, kinds, plain)
        hidden[: end - begin + 1] = False
        wanted = int(np.ceil(num_plain * share))
        _hide(key, kinds, plain, num_plain, wanted, length_sums, hidden)
        index = 0
        while index < end - begin:
            if not hidden[index]:
                index += 1
                continue
            first = index
            index += 1
            while hidden[index] and kinds[index] != _EDGE:
                index += 1
            within = kinds[first] != _EDGE and (kinds[index] == _INSIDE or kinds[index] == _WORD)
            fate = uniform_at(key, first, _FATE)
            for own in range(first, index):
                place = begin + own
                places[num_places] = place
                num_places += 1
                if fate < mask_probability:
                    tokens[place] = mask
                elif fate < mask_probability + random_probability:
                    drawn = integer_at(key, own, _RANDOM_TOKEN, frequency_sums[-1])
                    tokens[place] = np.searchsorted(frequency_sums, drawn, side="right")
                if within and own - first < max_index:
                    pairs[0, num_pairs] = begin + first - 1
                    pairs[1, num_pairs] = begin + index
                    pairs[2, num_pairs] = own - first
                    pairs[3, num_pairs] = original[place]
                    num_pairs += 1
    return num_places, num_pairs
