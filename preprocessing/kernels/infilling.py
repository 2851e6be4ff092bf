"""The loops of :mod:`preprocessing.corruption.infilling`."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from preprocessing.compiled import compiled
from preprocessing.kernels.draws import bits_at, integer_at, uniform_at
from preprocessing.kernels.picking import INT64, OUT, UINT8, UINT64, choose
from preprocessing.marks import SENTENCE, WORD

COMPILED_WITH = {"draws.py": "af11e9b22636e97d", "picking.py": "010a19a602c1e544"}

_SENTENCE = 0  # what the draws of a sentence's first place are taken for
_START, _SPAN, _IS_RANDOM, _TOKEN = 1, 2, 3, 4  # those of a place, once the sentences have moved
_LENGTH = 5  # those of a span, by its number
_BETWEEN, _BETWEEN_IS_RANDOM, _BETWEEN_TOKEN = 6, 7, 8  # those of a place of the result
_STAYS, _MASKED, _GOES = 0, 1, 2

MARKS = numba.uint8[::1]


@compiled(numba.boolean(INT64, numba.int64))
def _is_in(reserved: NDArray[np.int64], token: int) -> bool:
    found = False
    for other in reserved:
        found |= token == other
    return found


@compiled(numba.void(INT64, UINT8, INT64, UINT64, INT64, OUT, MARKS))
def permute(
    tokens: NDArray[np.int64],
    marks: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    keys: NDArray[np.uint64],
    reserved: NDArray[np.int64],
    out: NDArray[np.int64],
    out_marks: NDArray[np.uint8],
) -> None:
    """Give the sentences between special tokens another order; a sentence begins a word."""
    longest = 0
    for number in range(len(keys)):
        longest = max(longest, offsets[number + 1] - offsets[number])
    begins, draws = np.empty(longest + 1, np.int64), np.empty(longest, np.uint64)
    for number in range(len(keys)):
        place, end = offsets[number], offsets[number + 1]
        while place < end:
            if _is_in(reserved, tokens[place]):
                out[place], out_marks[place] = tokens[place], marks[place]
                place += 1
                continue
            first, sentences = place, 0
            while place < end and not _is_in(reserved, tokens[place]):
                if place == first or marks[place] & SENTENCE:
                    begins[sentences] = place
                    draws[sentences] = bits_at(keys[number], place - offsets[number], _SENTENCE)
                    sentences += 1
                place += 1
            begins[sentences] = place
            written = first
            for sentence in np.argsort(draws[:sentences], kind="mergesort"):
                for source in range(begins[sentence], begins[sentence + 1]):
                    out[written], out_marks[written] = tokens[source], marks[source]
                    if source == begins[sentence]:
                        out_marks[written] |= WORD
                    written += 1


@compiled(
    numba.int64(
        OUT,
        UINT8,
        INT64,
        UINT64,
        INT64,
        numba.types.Array(numba.float64, 1, "C", readonly=True),
        numba.int64,
        numba.int64,
        numba.float64,
        numba.float64,
        OUT,
    )
)
def fill_in(
    tokens: NDArray[np.int64],
    marks: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    keys: NDArray[np.uint64],
    reserved: NDArray[np.int64],
    length_ends: NDArray[np.float64],
    mask: int,
    size: int,
    share: float,
    random_share: float,
    lengths: NDArray[np.int64],
) -> int:
    """Put masks in the place of spans, in ``tokens`` themselves.

    Args:
        length_ends: a span has the first length whose number here its draw is below.
        lengths: gets the new length of each sequence.

    Returns:
        How many tokens are left.
    """
    longest = 0
    for number in range(len(keys)):
        longest = max(longest, offsets[number + 1] - offsets[number])
    places, spans = np.empty(longest, np.int64), np.empty(longest, np.int64)
    draws, fates = np.empty(2 * longest, np.uint64), np.empty(longest, np.uint8)
    starts, left = np.empty(longest, np.bool_), np.empty(longest, np.int64)
    written = 0
    for number in range(len(keys)):
        begin, key = offsets[number], keys[number]
        count = offsets[number + 1] - begin
        words, before = 0, True
        for place in range(count):
            reserved_here = _is_in(reserved, tokens[begin + place])
            starts[place] = not reserved_here and (before or marks[begin + place] & WORD != 0)
            before = reserved_here
            fates[place] = _STAYS
            if starts[place]:
                places[words] = place
                words += 1

        budget, held, num_spans, between, drawn = int(np.ceil(share * words)), 0, 0, 0, 0
        while held < budget:
            draw, length = uniform_at(key, drawn, _LENGTH), 0
            while draw >= length_ends[length]:
                length += 1
            spans[num_spans] = min(length, budget - held)
            held += spans[num_spans]
            num_spans += length > 0
            between += length == 0
            drawn += 1

        choose(key, places, words, num_spans, _START, draws, 0)
        for turn in range(num_spans):
            draws[turn] = bits_at(key, places[turn], _SPAN)
        for turn, span in enumerate(np.argsort(draws[:num_spans], kind="mergesort")):
            place = places[turn]
            fates[place] = max(fates[place], _MASKED)
            place += 1
            ahead = spans[span] - 1
            while place < count and not _is_in(reserved, tokens[begin + place]):
                ahead -= starts[place]
                if ahead < 0:
                    break
                fates[place] = _GOES
                place += 1

        kept = 0
        for place in range(count):
            token = tokens[begin + place]
            if fates[place] == _MASKED:
                token = mask
                if uniform_at(key, place, _IS_RANDOM) < random_share:
                    token = integer_at(key, place, _TOKEN, size)
            if fates[place] != _GOES:
                left[kept] = token
                kept += 1

        between = min(between, count - kept)
        first, last = 0, kept
        while first < count and _is_in(reserved, tokens[begin + first]):
            first += 1
        while last > first and _is_in(reserved, tokens[begin + count - 1 - (kept - last)]):
            last -= 1
        for place in range(first, last + between):
            places[place - first] = place
        choose(key, places, last + between - first, between, _BETWEEN, draws, 0)
        turn = source = 0
        for place in range(kept + between):
            if turn < between and places[turn] == place:
                tokens[written] = mask
                if uniform_at(key, place, _BETWEEN_IS_RANDOM) < random_share:
                    tokens[written] = integer_at(key, place, _BETWEEN_TOKEN, size)
                turn += 1
            else:
                tokens[written] = left[source]
                source += 1
            written += 1
        lengths[number] = kept + between
    return written
