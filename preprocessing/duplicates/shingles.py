"""Shingles: every run of n words of a text as a 64-bit number.

Letters, marks and digits of any script make up words, in lower case; everything else parts them.
Scripts that do not part words by spaces (Han, kana, Thai, Lao, Khmer, Burmese) have a word a
character. ``"Dark night."`` and ``"dark  NIGHT"`` thus have the same shingles. A text of fewer than
n words is one shingle, a text without a word has none.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import numba
import numpy as np
from numpy.typing import NDArray

from preprocessing.compiled import BYTES, PLACES, compiled
from preprocessing.texts import Texts

_SEPARATOR, _WORD, _LONE = 0, 1, 2
_LAST = 0x40000  # no letter has a higher code point
_WITHOUT_SPACES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),
    (0x3040, 0x30FF),  # kana
    (0x31F0, 0x31FF),
    (0x3400, 0x9FFF),  # Han
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),  # half-width kana
    (0x1B000, 0x1B16F),
    (0x20000, _LAST - 1),
)


def shingle_hashes(texts: Texts, ngram: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes of all shingles, text after text, and the offsets ``[texts + 1]`` of each text's.

    Equal shingles of a text are repeated. Needs 8 bytes a word.
    """
    kinds, folded = _tables()
    num_bytes = int(texts.offsets[-1] - texts.offsets[0])
    # No text has more words than this; pages that are not written to take no memory.
    hashes = np.empty((num_bytes + len(texts) + 1) // 2, np.uint64)
    offsets = np.zeros(len(texts) + 1, np.int64)
    count = _hash(texts.data, texts.offsets, kinds, folded, ngram, hashes, offsets)
    return hashes[:count], offsets


@lru_cache(maxsize=1)
def _tables() -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """For every code point what it is to a word, and its lower case."""
    kinds = np.full(_LAST, _SEPARATOR, np.uint8)
    folded = np.arange(_LAST, dtype=np.uint32)
    for point in range(_LAST):
        character = chr(point)
        if unicodedata.category(character)[0] in "LMN":
            kinds[point] = _WORD
            lower = character.lower()
            if len(lower) == 1:
                folded[point] = ord(lower)
    for first, last in _WITHOUT_SPACES:
        part = kinds[first : last + 1]
        part[part == _WORD] = _LONE
    return kinds, folded


_FACTOR = 0x9E3779B97F4A7C15  # odd, as every factor here: the products stay bijections
_PRIME = 0x100000001B3


@compiled(numba.uint64(numba.uint64))
def _mixed(state: np.uint64) -> np.uint64:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@compiled(
    numba.int64(
        BYTES,
        PLACES,
        numba.uint8[::1],
        numba.uint32[::1],
        numba.int64,
        numba.uint64[::1],
        numba.int64[::1],
    )
)
def _hash(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    kinds: NDArray[np.uint8],
    folded: NDArray[np.uint32],
    ngram: int,
    hashes: NDArray[np.uint64],
    places: NDArray[np.int64],
) -> int:
    """Fill ``hashes`` and ``places``; returns how many hashes there are."""
    factor = np.uint64(_FACTOR)
    leaving = np.uint64(1)  # what the oldest word has been multiplied with when it leaves
    for _ in range(ngram):
        leaving *= factor
    window = np.zeros(ngram, np.uint64)
    count = 0
    for text in range(len(offsets) - 1):
        words = 0
        rolling = np.uint64(0)
        word = np.uint64(0)
        place, end = offsets[text], offsets[text + 1]
        while place <= end:
            kind, point = _SEPARATOR, np.uint32(0)
            if place == end:
                place += 1
            else:
                first = np.uint32(data[place])
                if first < 0x80:
                    point, place = first, place + 1
                elif first < 0xE0:
                    point = (first & 0x1F) << 6 | (data[place + 1] & 0x3F)
                    place += 2
                elif first < 0xF0:
                    point = (first & 0x0F) << 12 | np.uint32(data[place + 1] & 0x3F) << 6
                    point |= data[place + 2] & 0x3F
                    place += 3
                else:
                    point = (first & 0x07) << 18 | np.uint32(data[place + 1] & 0x3F) << 12
                    point |= np.uint32(data[place + 2] & 0x3F) << 6 | (data[place + 3] & 0x3F)
                    place += 4
                if point < _LAST:
                    kind = kinds[point]
                    point = folded[point]
            if kind == _WORD:
                word = (word ^ np.uint64(point + 1)) * np.uint64(_PRIME)
                continue
            for ended in (word, np.uint64(point + 1) if kind == _LONE else np.uint64(0)):
                if ended:
                    ended = _mixed(ended) | np.uint64(1)
                    slot = words % ngram
                    rolling = rolling * factor + ended
                    if words >= ngram:
                        rolling -= window[slot] * leaving
                    window[slot] = ended
                    words += 1
                    if words >= ngram:
                        hashes[count] = _mixed(rolling)
                        count += 1
            word = np.uint64(0)
        if 0 < words < ngram:
            hashes[count] = _mixed(rolling)
            count += 1
        places[text + 1] = count
    return count
