r"""Where GPT-2's regular expression splits (Radford et al. 2019, section 2.2), in compiled code.

    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+

Read from left to right: a contraction; else a run of letters, of numbers or of other visible
characters, each with the one space before it; else white space, whose last character is left to
what follows. A chunk is one match, and a match by itself is matched as in its text: what comes
after a text can only lengthen a run or change the look-ahead, and all of a run of white space is
one match where nothing follows.

No match goes from one visible character to white space or to a visible one of another class,
except from an apostrophe to a letter: everywhere else between two such characters a text may be
cut, whatever it holds. Where a character occurs whose class is not sure, since Python does not
know it, all between the sure cuts around it is one chunk, for the reference.
"""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
from numba import boolean, int32, int64, uint8, uint64
from numpy.typing import NDArray

from preprocessing.compiled import BYTES, PLACES, compiled
from preprocessing.tokenization.dictionary import TEXT_END

NUM_POINTS = 0x323B0
"""Above it lie only tags, variation selectors and private use."""
UNSURE, LETTER, NUMBER, SPACE, OTHER = range(5)

APOSTROPHE = 39
_SEPARATORS = "\x1c\x1d\x1e\x1f"  # white space to Python, not to Unicode


def character_classes(splitter: Any) -> NDArray[np.uint8]:
    r"""The class of each code point ``[NUM_POINTS]``, as the library sees it.

    All characters of a class in one string must be one match, or one that no character is known
    to belong to: then the class is ``UNSURE`` and the reference is asked whenever it occurs.

    Args:
        splitter: ``ByteLevel`` with the regular expression and without a prefix space.
    """
    classes = np.full(NUM_POINTS, UNSURE, np.uint8)
    for point in range(NUM_POINTS):
        character = chr(point)
        category = unicodedata.category(character)
        if category[0] in "LN":
            classes[point] = LETTER if category[0] == "L" else NUMBER
        elif character.isspace() and character not in _SEPARATORS:
            classes[point] = SPACE
        elif category not in ("Cn", "Cs"):
            classes[point] = OTHER
    for own, first in ((LETTER, "a"), (NUMBER, "1"), (SPACE, "\n"), (OTHER, "!")):
        joined = first + "".join(map(chr, np.flatnonzero(classes == own)))
        if len(splitter.pre_tokenize_str(joined)) != 1:
            classes[classes == own] = UNSURE
    return classes


@compiled(int64(BYTES, int64, uint8[::1]))
def _class(data, place, classes):  # type: ignore[no-untyped-def]
    byte = np.int64(data[place])
    if byte < 0x80:
        point = byte
    elif byte < 0xE0:
        point = (byte & 0x1F) << 6 | np.int64(data[place + 1] & 0x3F)
    else:
        point = np.int64(data[place + 1] & 0x3F) << 6 | np.int64(data[place + 2] & 0x3F)
        if byte < 0xF0:
            point |= (byte & 0x0F) << 12
        else:
            point = (byte & 0x07) << 18 | point << 6 | np.int64(data[place + 3] & 0x3F)
    return np.int64(classes[point]) if point < len(classes) else UNSURE


@compiled(int64(BYTES, int64))
def _after(data, place):  # type: ignore[no-untyped-def]
    byte = data[place]
    return place + (1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4)


@compiled(int64(BYTES, int64, int64, uint8[::1]))
def _match(data, start, stop, classes):  # type: ignore[no-untyped-def]
    """The end of the match at ``start``; -1 where a character of no sure class may decide it."""
    place = start
    kind = _class(data, place, classes)
    if kind == OTHER and data[place] == APOSTROPHE:
        second = data[place + 1] if place + 1 < stop else 0
        if second in (115, 116, 109, 100):  # s t m d
            return place + 2
        third = data[place + 2] if place + 2 < stop else 0
        if (second in (114, 118) and third == 101) or (second == 108 and third == 108):
            return place + 3  # re ve ll
    if data[place] == 32 and place + 1 < stop:
        following = _class(data, place + 1, classes)
        if following != SPACE:
            place += 1
            kind = following
    last = place
    while place < stop:
        own = _class(data, place, classes)
        if own == UNSURE:
            return -1
        if own != kind:
            break
        last = place
        place = _after(data, place)
    if kind == SPACE and place < stop and last > start:
        return last
    return place


@compiled(boolean(BYTES, int64, int64, uint8[::1]))
def _is_sure(data, before, place, classes):  # type: ignore[no-untyped-def]
    """Whether a text may be cut at a place, if the character before it begins at ``before``."""
    first, second = _class(data, before, classes), _class(data, place, classes)
    if first in (UNSURE, SPACE) or second in (UNSURE, first):
        return False
    return second != LETTER or data[before] != APOSTROPHE


@compiled(int64(BYTES, PLACES, uint8[::1], int64[::1], int64[::1], int32[::1], uint64[::1]))
def cut(  # type: ignore[no-untyped-def]
    data, offsets, classes, state, starts, lengths, hashes
):
    """The next chunks; see :class:`preprocessing.tokenization.chunks.Pipeline`.

    Where the room ends, it goes back to the last sure cut, lest a chunk that is handed out turn
    out to be part of a longer one. There is a sure cut at every few matches.
    """
    text, place = state[0], state[1]
    most = len(starts)
    count = sure_count = 0
    sure_place = before = place
    seed, prime = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
    begin, stop = place, offsets[text + 1]
    while True:
        if place == stop:
            if count == most:
                break
            starts[count] = stop
            lengths[count] = TEXT_END
            count += 1
            text += 1
            if text == len(offsets) - 1:
                sure_count, sure_place = count, place
                break
            begin = place = offsets[text]
            stop = offsets[text + 1]
            sure_count, sure_place = count, place
            continue
        if place > begin:
            before = place - 1
            while data[before] & 0xC0 == 0x80:
                before -= 1
            if _is_sure(data, before, place, classes):
                sure_count, sure_place = count, place
        if count == most:
            break
        end = _match(data, place, stop, classes)
        if end < 0:
            count, place = sure_count, sure_place
            end = place
            while end < stop:
                before = end
                end = _after(data, end)
                if end < stop and _is_sure(data, before, end, classes):
                    break
        value = seed
        for k in range(place, end):
            value = (value ^ np.uint64(data[k])) * prime
        value ^= value >> np.uint64(29)
        value *= np.uint64(0xBF58476D1CE4E5B9)
        value ^= value >> np.uint64(32)
        starts[count] = place
        lengths[count] = end - place
        hashes[count] = value
        count += 1
        place = end
    state[0], state[1] = text, sure_place
    return sure_count
