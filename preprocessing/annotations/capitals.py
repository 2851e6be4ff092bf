"""Capitalised words in the bytes of a column: what an uncased vocabulary no longer tells.

A word is a run of letters, digits and the marks upon them, in scripts with spaces; it is
capitalised where its first character is an upper-case or title-case letter.

    text      "McNeil's iPhone, 3D. Ébauche"
    found      McNeil                Ébauche       at the bytes (0, 6), (21, 29)
"""

from __future__ import annotations

import functools
import unicodedata

import numpy as np
import pyarrow as pa
from numba import int64, uint8
from numpy.typing import NDArray

from preprocessing.annotations.matching import code_point, traits
from preprocessing.compiled import BYTES, PLACES, compiled
from preprocessing.texts import Texts

COMPILED_WITH = {"matching.py": "492c18d56356524b"}

CAPITALS = pa.large_list(pa.field("item", pa.bool_(), nullable=False))
"""A column of flags, one a token: whether it is part of a capitalised word."""

_IN_WORD, _CAPITAL = 1, 2


def capitalised_words(texts: Texts) -> NDArray[np.int64]:
    """The capitalised words: int64 ``[words, 2]``, begin and end in ``texts.data``, ascending."""
    return np.asarray(_find(texts.data, np.ascontiguousarray(texts.offsets), _kinds()))


@functools.cache
def _kinds() -> NDArray[np.uint8]:
    """What every code point is to a word, uint8 ``[0x110000]``."""
    kinds = traits() & np.uint8(_IN_WORD)
    for point in range(0x20000):  # no script beyond has case
        if unicodedata.category(chr(point)) in ("Lu", "Lt"):
            kinds[point] |= _CAPITAL
    return kinds


@compiled(int64[:, ::1](BYTES, PLACES, uint8[::1]))
def _find(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], kinds: NDArray[np.uint8]
) -> NDArray[np.int64]:
    num_texts = len(offsets) - 1
    # Words of one text are apart. Pages that are never written take no memory.
    found = np.empty((num_texts + (offsets[-1] - offsets[0]) // 2 + 1, 2), np.int64)
    count = 0
    for text in range(num_texts):
        place, end = offsets[text], offsets[text + 1]
        inside = capital = False
        while place < end:
            first = data[place]
            width = 1
            kind = kinds[first]
            if first >= 0x80:
                kind = kinds[code_point(data, place)]
                width = 2 + int(first >= 0xE0) + int(first >= 0xF0)
            if (kind & _IN_WORD > 0) != inside:
                inside = not inside
                if inside and kind & _CAPITAL:
                    found[count, 0] = place
                    capital = True
                elif capital:
                    found[count, 1] = place
                    count += 1
                    capital = False
            place += width
        if capital:
            found[count, 1] = end
            count += 1
    return found[:count].copy()
