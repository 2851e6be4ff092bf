"""Characters and matches in the bytes of a column: the compiled parts of lexicons and words."""

from __future__ import annotations

import functools
import unicodedata

import numpy as np
from numba import boolean, int32, int64, uint8
from numpy.typing import NDArray

from preprocessing.compiled import BYTES, PLACES, compiled

# What a character is, one bit each. A letter or digit belongs to a word unless its script is
# written without spaces (Korean is, but its particles stand at the words they follow); a mark
# belongs to the character before it.
_IS_WORD, _IS_MARK, _IS_HAN = 1, 2, 4

_WITHOUT_SPACES = (
    (0x0E00, 0x109F),  # Thai, Lao, Tibetan, Burmese
    (0x1100, 0x11FF),  # Hangul Jamo
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x1AAF),  # Tai Le, New Tai Lue, Khmer symbols, Buginese, Tai Tham
    (0x1B00, 0x1B7F),  # Balinese
    (0x2E80, 0xA4CF),  # radicals, kana, Bopomofo, Hangul, ideographs, Yi
    (0xA960, 0xA9FF),  # Hangul Jamo, Javanese, Burmese
    (0xAA60, 0xAADF),  # Burmese, Tai Viet
    (0xAC00, 0xD7FF),  # Hangul
    (0xF900, 0xFAFF),  # ideographs
    (0xFF65, 0xFFDC),  # half-width kana and Hangul
    (0x1AFF0, 0x1B16F),  # kana
    (0x20000, 0x3FFFF),  # ideographs
)
_HAN = (
    (0x3005, 0x3005),
    (0x3007, 0x3007),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


@functools.cache
def traits() -> NDArray[np.uint8]:
    """What every code point is, uint8 ``[0x110000]``."""
    found = np.zeros(0x110000, np.uint8)
    for point in (*range(0x40000), *range(0xE0000, 0xE0200)):
        category = unicodedata.category(chr(point))[0]
        if category in "LN":
            found[point] = _IS_WORD
        elif category == "M":
            found[point] = _IS_WORD | _IS_MARK
    for first, last in _WITHOUT_SPACES:
        found[first : last + 1] &= _IS_MARK
    for first, last in _HAN:
        found[first : last + 1] |= _IS_HAN
    return found


@functools.cache
def folding() -> NDArray[np.int32]:
    """What a character becomes where case does not matter, int32 ``[0x20000]``.

    Only single characters of as many UTF-8 bytes, so that no place moves: ``ẞ``, ``İ`` and the
    Kelvin sign stay what they are.
    """
    table = np.arange(0x20000, dtype=np.int32)
    for point in range(0x20000):
        character = chr(point)
        for folded in (character.casefold(), character.lower()):
            if len(folded) == 1 and _width(ord(folded)) == _width(point):
                table[point] = ord(folded)
                break
    return table


def _width(point: int) -> int:
    return 1 + (point >= 0x80) + (point >= 0x800) + (point >= 0x10000)


@compiled(int64(BYTES, int64))
def code_point(data: NDArray[np.uint8], place: int) -> int:
    """The character that begins at a place of valid UTF-8."""
    first = int(data[place])
    if first < 0x80:
        return first
    point = first & (0x1F if first < 0xE0 else 0x0F if first < 0xF0 else 0x07)
    for later in range(place + 1, place + 2 + int(first >= 0xE0) + int(first >= 0xF0)):
        point = point << 6 | int(data[later] & 0x3F)
    return point


@compiled(uint8[::1](BYTES, int32[::1]))
def fold(data: NDArray[np.uint8], table: NDArray[np.int32]) -> NDArray[np.uint8]:
    """The bytes ``[bytes]`` with each character replaced by what the table of folding says."""
    folded = data.copy()
    place = 0
    while place < len(data):
        first = data[place]
        width = 1 + int(first >= 0xC0) + int(first >= 0xE0) + int(first >= 0xF0)
        point = code_point(data, place)
        if point < len(table) and table[point] != point:
            point = int(table[point])
            if width == 1:
                folded[place] = point
            else:
                for later in range(place + width - 1, place, -1):
                    folded[later] = 0x80 | (point & 0x3F)
                    point >>= 6
                folded[place] = (0xFF << (8 - width) & 0xFF) | point
        place += width
    return folded


@compiled(boolean(BYTES, int64, int64, int64, uint8[::1]))
def _may_part(
    data: NDArray[np.uint8], place: int, begin: int, end: int, traits: NDArray[np.uint8]
) -> bool:
    """Whether a match may begin or end at a place of the text from ``begin`` to ``end``."""
    if place in (begin, end):
        return True
    after = traits[code_point(data, place)]
    if after & _IS_MARK:
        return False
    if not after & _IS_WORD:
        return True
    place -= 1
    while data[place] & 0xC0 == 0x80:
        place -= 1
    return not traits[code_point(data, place)] & _IS_WORD


@compiled(int64[:, ::1](BYTES, PLACES, uint8[::1], int64[:, ::1], int64))
def choose(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    traits: NDArray[np.uint8],
    matches: NDArray[np.int64],
    free: int,
) -> NDArray[np.int64]:
    """Of all matches the leftmost, of these the longest, then on behind it.

    Args:
        data: bytes of the column.
        offsets: of its texts; a match across two of them is none.
        traits: of every code point; a match that begins or ends within a word is none.
        matches: int64 ``[matches, 2]``, begin and end, ascending, longer ones first.
        free: the place where the first may begin.

    Returns:
        int64 ``[chosen, 2]``.
    """
    chosen = np.empty_like(matches)
    count = 0
    text = 0
    for index in range(len(matches)):
        begin, end = matches[index, 0], matches[index, 1]
        if begin < free:
            continue
        if offsets[text + 1] <= begin:
            text = np.searchsorted(offsets, begin, side="right") - 1
        low, high = offsets[text], offsets[text + 1]
        if (
            end <= high
            and _may_part(data, begin, low, high, traits)
            and _may_part(data, end, low, high, traits)
        ):
            chosen[count, 0], chosen[count, 1] = begin, end
            count += 1
            free = end
    return chosen[:count].copy()


@compiled(int64[::1](BYTES, int64, int64, uint8[::1]))
def han_places(
    data: NDArray[np.uint8], begin: int, end: int, traits: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Where the Han characters between two places begin, ascending."""
    places = np.empty((end - begin) // 3 + 1, np.int64)  # each has three bytes or four
    count = 0
    for place in range(begin, end):
        if data[place] >= 0xE3 and traits[code_point(data, place)] & _IS_HAN:
            places[count] = place
            count += 1
    return places[:count].copy()
