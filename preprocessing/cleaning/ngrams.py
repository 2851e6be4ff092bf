"""What repeats within a text, and which sequences of words it shares with others.

All of it works on 64-bit hashes, of words, lines or paragraphs, those of text i at
``offsets[i]:offsets[i + 1]``. Two different sequences of words have equal hashes about once in
10^19 pairs.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from preprocessing.compiled import BYTES, PLACES, compiled

_PRIME = np.uint64(0x9E3779B97F4A7C15)
_INT32 = numba.types.Array(numba.int32, 1, "C", readonly=True)
_UINT64 = numba.types.Array(numba.uint64, 1, "C", readonly=True)
_BOOL = numba.types.Array(numba.boolean, 1, "C", readonly=True)


@compiled(numba.uint64(numba.uint64))
def _mix(value: np.uint64) -> np.uint64:
    """Every bit of a hash into all of them (the finaliser of MurmurHash3); never 0."""
    value ^= value >> np.uint64(33)
    value *= np.uint64(0xFF51AFD7ED558CCD)
    value ^= value >> np.uint64(33)
    value *= np.uint64(0xC4CEB9FE1A85EC53)
    value ^= value >> np.uint64(33)
    return value if value else np.uint64(1)


@compiled(numba.int64(numba.int64))
def _table_size(entries: int) -> int:
    """A power of two that leaves at least half of a hash table free."""
    size = 16
    while size < 2 * entries:
        size *= 2
    return size


@compiled(numba.uint64(_UINT64, numba.uint64, numba.uint64))
def _slot(table: NDArray[np.uint64], last: np.uint64, key: np.uint64) -> np.uint64:
    """Where a key stands in a table whose last slot is ``last``, else the free slot for it."""
    slot = key & last
    while table[slot] != 0 and table[slot] != key:
        slot = (slot + np.uint64(1)) & last
    return slot


@compiled(numba.int64(PLACES, _BOOL))
def _longest(offsets: NDArray[np.int64], active: NDArray[np.bool_]) -> int:
    """The number of items in the longest of the active texts."""
    longest = 0
    for text in range(len(active)):
        if active[text]:
            longest = max(longest, offsets[text + 1] - offsets[text])
    return longest


@compiled(numba.uint64[::1](BYTES, PLACES, PLACES))
def hash_spans(
    data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """A hash of the bytes of each span."""
    hashes = np.empty(len(starts), np.uint64)
    for span in range(len(starts)):
        value = _PRIME
        for place in range(starts[span], ends[span]):
            value = (value ^ np.uint64(data[place])) * _PRIME
            value ^= value >> np.uint64(32)
        hashes[span] = _mix(value)
    return hashes


@compiled(numba.uint64[::1](_UINT64, PLACES, numba.int64))
def ngram_hashes(
    hashes: NDArray[np.uint64], offsets: NDArray[np.int64], n: int
) -> NDArray[np.uint64]:
    """A hash of the n items from each on, ``[items]``; 0 where fewer are left in the text."""
    grams = np.zeros(len(hashes), np.uint64)
    power = np.uint64(1)
    for _ in range(n):
        power *= _PRIME
    for text in range(len(offsets) - 1):
        value = np.uint64(0)
        for index in range(offsets[text], offsets[text + 1]):
            value = value * _PRIME + hashes[index]
            first = index - n + 1
            if first > offsets[text]:
                value -= hashes[first - 1] * power
            if first >= offsets[text]:
                grams[first] = _mix(value)
    return grams


@compiled(numba.int64[::1](_UINT64, _INT32, PLACES, _BOOL, numba.int64))
def duplicate_ngrams(
    hashes: NDArray[np.uint64],
    lengths: NDArray[np.int32],
    offsets: NDArray[np.int64],
    active: NDArray[np.bool_],
    n: int,
) -> NDArray[np.int64]:
    """The summed length of the items in n-grams that stood before in the same text, ``[texts]``.

    An item in several such n-grams counts once; the first of equal n-grams is no duplicate:

        a b c a b c a, n = 3:  "a b c" and "b c a" come again, which covers 4 of 7 items

    Texts that are not active get 0.
    """
    grams = ngram_hashes(hashes, offsets, n)
    sums = np.zeros(len(offsets) - 1, np.int64)
    table = np.empty(_table_size(_longest(offsets, active)), np.uint64)
    for text in range(len(sums)):
        start, stop = offsets[text], offsets[text + 1]
        if not active[text] or stop - start <= n:
            continue
        size = _table_size(stop - start)
        table[:size] = 0
        covered = start
        for index in range(start, stop - n + 1):
            gram = grams[index]
            slot = _slot(table, np.uint64(size - 1), gram)
            if table[slot] == gram:
                for item in range(max(covered, index), index + n):
                    sums[text] += lengths[item]
                covered = index + n
            table[slot] = gram
    return sums


@compiled(numba.int64[::1](_UINT64, _INT32, PLACES, _BOOL, numba.int64))
def top_ngram(
    hashes: NDArray[np.uint64],
    lengths: NDArray[np.int32],
    offsets: NDArray[np.int64],
    active: NDArray[np.bool_],
    n: int,
) -> NDArray[np.int64]:
    """The summed length of the items in the most frequent n-gram of each text, ``[texts]``.

    An item in several of its occurrences counts once. Of equally frequent n-grams the longest
    counts; an n-gram that stands only once does not. Texts that are not active get 0.
    """
    grams = ngram_hashes(hashes, offsets, n)
    sums = np.zeros(len(offsets) - 1, np.int64)
    table = np.empty(_table_size(_longest(offsets, active)), np.uint64)
    counts = np.empty(len(table), np.int32)
    for text in range(len(sums)):
        start, stop = offsets[text], offsets[text + 1]
        if not active[text] or stop - start <= n:
            continue
        size = _table_size(stop - start)
        table[:size] = 0
        counts[:size] = 0
        best, best_count, best_length, length = np.uint64(0), 1, 0, 0
        for item in range(start, start + n - 1):
            length += lengths[item]
        for index in range(start, stop - n + 1):
            length += lengths[index + n - 1]
            gram = grams[index]
            slot = _slot(table, np.uint64(size - 1), gram)
            table[slot] = gram
            counts[slot] += 1
            if counts[slot] > best_count or (
                counts[slot] == best_count > 1 and length > best_length
            ):
                best, best_count, best_length = gram, counts[slot], length
            length -= lengths[index]
        covered = start
        for index in range(start, stop - n + 1):
            if best != 0 and grams[index] == best:
                for item in range(max(covered, index), index + n):
                    sums[text] += lengths[item]
                covered = index + n
    return sums


@compiled(numba.uint64[::1](_UINT64))
def hash_table(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Keys, none of them 0, laid out for :func:`found_in`."""
    table = np.zeros(_table_size(len(keys)), np.uint64)
    last = np.uint64(len(table) - 1)
    for key in keys:
        table[_slot(table, last, key)] = key
    return table


@compiled(numba.boolean[::1](_UINT64, _UINT64))
def found_in(keys: NDArray[np.uint64], table: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of the keys stand in a :func:`hash_table`; 0 stands in none."""
    found = np.zeros(len(keys), np.bool_)
    last = np.uint64(len(table) - 1)
    for index in range(len(keys)):
        key = keys[index]
        found[index] = key != 0 and table[_slot(table, last, key)] == key
    return found
