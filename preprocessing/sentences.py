"""Sentence boundaries of a document by rule: scripts with spaces, and Chinese or Japanese.

    >>> text = 'Mr. Hale left. "Why?" she asked.\\nHe met J. R. Thorne. 「行こう。」と言った。'
    >>> [text[start:stop] for start, stop in split_sentences(text)]
    ['Mr. Hale left.', '"Why?" she asked.', 'He met J. R. Thorne.', '「行こう。」', 'と言った。']

The rules:

- A line end always ends a sentence. Line ends are Unicode's newline functions (The Unicode
  Standard, section 5.8): LF, CR, VT, FF, NEL, LS and PS. The separators U+001C to U+001E are white
  space like any other, though ``str.splitlines`` breaks at them.
- ``.``, ``!``, ``?`` and ``…``, and the marks of Arabic (``؟``, ``۔``), Devanagari (``।``, ``॥``),
  Armenian (``։``), Ethiopic (``።``, ``፧``), Burmese (``။``) and Khmer (``។``), with the quotes and
  brackets that close after them, end one where white space follows and then an upper-case letter
  (or one of a script without case), a digit or an opening quote or bracket.
- A lone ``.`` does not after a title (``Mr.``), after ``e.g.`` and its like, after a single
  initial (``J.``, but not the pronoun in "So did I."), nor, before a digit, after ``No.``,
  ``Fig.`` or a month.
- ``。``, ``！``, ``？`` and what vertical text has for pairs of them (``‼``, ``⁉``), with what
  closes after them, end one at once.

The rules are written twice: :func:`split_sentences` is the plain reference on one Python string,
:func:`sentence_starts` finds the same places in the bytes of a whole column in compiled code.
"""

from __future__ import annotations

import functools
import re

import numpy as np
from numba import boolean, int64, uint16
from numpy.typing import NDArray

from preprocessing.compiled import BYTES, PLACES, compiled
from preprocessing.texts import Texts

_NARROW = ".!?…؟۔।॥։።፧။។"
_WIDE = "。！？｡‼⁇⁈⁉"
_LINE_ENDS = "\n\r\v\f\x85\u2028\u2029"
_CLOSING = "\"'”’“»«›)]}」』）】》〉"
_CLOSING_WIDE = "”’」』）】》〉"
_OPENING = "\"'“‘„«»‹([{¿¡「『（【《〈"
_BEFORE_A_WORD = "([\"'“‘"


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


_ABBREVIATIONS = _words(
    "Mr Mrs Ms Messrs Mme Mlle Dr Drs Prof Rev Revd Hon St Ste Fr Capt Cpt Col Gen Lt Maj Sgt Cpl "
    "Pvt Adm Cdr Gov Sen Rep Pres Supt Insp Mt "
    "e.g eg i.e ie etc cf vs v viz ca approx resp E.g I.e Cf Vs Viz"
)
_BEFORE_NUMBERS = _words(
    "No Nos Nr Vol Vols Fig Figs Eq Eqs Ch Chap Sec Sect Art Pt Ver p pp no nos nr vol fig figs eq "
    "ch chap sec sect art par pt ver Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec"
)
# No abbreviation with its opening brackets is as long, so a word cut off here is none of them.
_LONGEST_WORD = 12

# Every terminator matches, wherever it stands, so that a long run of them is passed only once.
_CANDIDATE = re.compile(
    rf"([{re.escape(_NARROW)}]++[{re.escape(_CLOSING)}]*+)\s*+"
    rf"|([{_WIDE}][{re.escape(_NARROW + _WIDE + _CLOSING_WIDE)}]*+)\s*+"
    rf"|[{_LINE_ENDS}]\s*+"
)
_LINE_END = re.compile(rf"[{_LINE_ENDS}]")


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Character spans ``(start, stop)`` of the sentences of a document.

    The spans are in order, do not overlap, hold every character that is not white space, and none
    is empty or begins or ends with white space.
    """
    length = len(text)
    start = length - len(text.lstrip())
    spans = []
    for match in _CANDIDATE.finditer(text, start):
        mark, following = match.span()
        if following == length:
            break
        if match.lastindex is None:
            stop = mark
            while text[stop - 1].isspace():
                stop -= 1
        else:
            stop = match.end(match.lastindex)
            if match.lastindex == 1 and not _ends(text, start, mark, stop, following):
                continue
        spans.append((start, stop))
        start = following
    if start < length:
        spans.append((start, len(text.rstrip())))
    return spans


def _ends(text: str, start: int, mark: int, stop: int, following: int) -> bool:
    """Whether a candidate ends the sentence that began at ``start``.

    The terminators begin at ``mark``, the white space at ``stop``, what comes after it at
    ``following``.
    """
    if stop == following:
        return False
    if _LINE_END.search(text, stop, following):
        return True
    after = text[following]
    if not (after in _OPENING or after.isdigit() or (after.isalpha() and not after.islower())):
        return False
    if stop - mark > 1 or text[mark] != ".":
        return True
    words = text[max(start, mark - _LONGEST_WORD) : mark].split()
    word = words[-1].lstrip(_BEFORE_A_WORD) if words else ""
    if word in _ABBREVIATIONS or (word in _BEFORE_NUMBERS and after.isdigit()):
        return False
    initial = word.rpartition(".")[2]  # of "J.R" too
    return not (len(initial) == 1 and initial.isupper() and initial != "I")


def sentence_starts(texts: Texts) -> NDArray[np.int64]:
    """Where the sentences of all texts begin: ascending places in ``texts.data`` ``[sentences]``.

    They are the starts of :func:`split_sentences`, so a blank text has none, and every other text
    has one at its first character that is not white space.
    """
    traits, leads = _characters()
    starts: NDArray[np.int64] = _find(
        texts.data, texts.offsets, traits, leads, _ABBREVIATION_KEYS, _NUMBER_KEYS
    )
    return starts


# What a character is to the rules, one bit each.
_IS_SPACE, _IS_DIGIT, _IS_UPPER, _MAY_BEGIN, _IS_CLOSING, _IS_CLOSING_WIDE = 1, 2, 4, 8, 16, 32
_IS_NARROW, _IS_WIDE, _IS_LINE_END, _IS_BEFORE_A_WORD = 64, 128, 256, 512


@functools.cache
def _characters() -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Traits of every code point, and which bytes may begin a terminator or a line end."""
    traits = np.zeros(0x110000, np.uint16)
    for point in range(0x40000):  # the planes above hold no letter, digit or space
        character = chr(point)
        if character.isalpha():
            traits[point] = 0 if character.islower() else _MAY_BEGIN
            if character.isupper():
                traits[point] |= _IS_UPPER
        elif character.isdigit():
            traits[point] = _IS_DIGIT | _MAY_BEGIN
        elif character.isspace():
            traits[point] = _IS_SPACE
        elif character.isupper():  # Ⓐ and its like
            traits[point] = _IS_UPPER
    for characters, trait in (
        (_OPENING, _MAY_BEGIN),
        (_CLOSING, _IS_CLOSING),
        (_CLOSING_WIDE, _IS_CLOSING_WIDE),
        (_NARROW, _IS_NARROW),
        (_WIDE, _IS_WIDE),
        (_LINE_ENDS, _IS_LINE_END),
        (_BEFORE_A_WORD, _IS_BEFORE_A_WORD),
    ):
        traits[[ord(character) for character in characters]] |= trait
    leads = np.zeros(256, np.bool_)
    leads[[character.encode()[0] for character in _NARROW + _WIDE + _LINE_ENDS]] = True
    return traits, leads


def _keys(words: frozenset[str]) -> NDArray[np.int64]:
    """Words of up to seven bytes as numbers, ascending; the leading 1 keeps NULs apart."""
    return np.array(sorted(int.from_bytes(b"\1" + word.encode()) for word in words), np.int64)


_ABBREVIATION_KEYS = _keys(_ABBREVIATIONS)
_NUMBER_KEYS = _keys(_BEFORE_NUMBERS)

_TRAITS = uint16[::1]
_KEYS = int64[::1]


@compiled(int64(BYTES, int64))
def _after(data: NDArray[np.uint8], place: int) -> int:
    """The place after the character at a place."""
    first = data[place]
    return place + 1 + int(first >= 0xC0) + int(first >= 0xE0) + int(first >= 0xF0)


@compiled(uint16(BYTES, int64, _TRAITS))
def _trait(data: NDArray[np.uint8], place: int, traits: NDArray[np.uint16]) -> int:
    """The traits of the character at a place."""
    first = int(data[place])
    if first < 0x80:
        return int(traits[first])
    point = first & (0x1F if first < 0xE0 else 0x0F if first < 0xF0 else 0x07)
    for later in range(place + 1, _after(data, place)):
        point = point << 6 | int(data[later] & 0x3F)
    return int(traits[point])


@compiled(int64(BYTES, int64, int64, _TRAITS, int64))
def _pass(
    data: NDArray[np.uint8], place: int, end: int, traits: NDArray[np.uint16], any_of: int
) -> int:
    """The place after a run of characters with any of some traits."""
    while place < end and _trait(data, place, traits) & any_of:
        place = _after(data, place)
    return place


@compiled(boolean(_KEYS, int64))
def _holds(keys: NDArray[np.int64], key: int) -> bool:
    place = np.searchsorted(keys, key)
    return bool(place < len(keys) and keys[place] == key)


@compiled(boolean(BYTES, int64, int64, _TRAITS, _KEYS, _KEYS, boolean))
def _is_abbreviation(
    data: NDArray[np.uint8],
    start: int,
    mark: int,
    traits: NDArray[np.uint16],
    abbreviations: NDArray[np.int64],
    before_numbers: NDArray[np.int64],
    number_follows: bool,
) -> bool:
    """Whether the lone stop at ``mark`` belongs to the word before it."""
    # The last word of the window: backwards over white space, then over what is none.
    stop = word = place = mark
    for _ in range(_LONGEST_WORD):
        if place == start:
            break
        place -= 1
        while data[place] & 0xC0 == 0x80:
            place -= 1
        if not _trait(data, place, traits) & _IS_SPACE:
            word = place
        elif word == stop:
            stop = word = place
        else:
            break
    word = _pass(data, word, stop, traits, _IS_BEFORE_A_WORD)
    if 0 < stop - word < 8:
        key = 1
        for place in range(word, stop):
            key = key << 8 | int(data[place])
        if _holds(abbreviations, key) or (number_follows and _holds(before_numbers, key)):
            return True
    if word == stop:
        return False
    last = stop - 1
    while data[last] & 0xC0 == 0x80:
        last -= 1
    if last > word and data[last - 1] != ord("."):
        return False
    return bool(_trait(data, last, traits) & _IS_UPPER) and data[last] != ord("I")


@compiled(boolean(BYTES, int64, int64, int64, int64, _TRAITS, _KEYS, _KEYS))
def _ends_in_bytes(
    data: NDArray[np.uint8],
    start: int,
    mark: int,
    stop: int,
    following: int,
    traits: NDArray[np.uint16],
    abbreviations: NDArray[np.int64],
    before_numbers: NDArray[np.int64],
) -> bool:
    """:func:`_ends` in compiled code."""
    if stop == following:
        return False
    space = stop
    while space < following:
        if _trait(data, space, traits) & _IS_LINE_END:
            return True
        space = _after(data, space)
    trait = _trait(data, following, traits)
    if not trait & _MAY_BEGIN:
        return False
    if stop - mark > 1 or data[mark] != ord("."):
        return True
    number_follows = bool(trait & _IS_DIGIT)
    return not _is_abbreviation(
        data, start, mark, traits, abbreviations, before_numbers, number_follows
    )


@compiled(int64[::1](BYTES, PLACES, _TRAITS, boolean[::1], _KEYS, _KEYS))
def _find(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    traits: NDArray[np.uint16],
    leads: NDArray[np.bool_],
    abbreviations: NDArray[np.int64],
    before_numbers: NDArray[np.int64],
) -> NDArray[np.int64]:
    starts = np.empty(1024, np.int64)
    count = 0
    for index in range(len(offsets) - 1):
        end = offsets[index + 1]
        start = place = _pass(data, offsets[index], end, traits, _IS_SPACE)
        begins = start < end
        while True:
            if begins:
                if count == len(starts):
                    longer = np.empty(2 * count, np.int64)
                    longer[:count] = starts
                    starts = longer
                starts[count] = start = place
                count += 1
            while place < end and not leads[data[place]]:
                place += 1
            if place >= end:
                break
            mark = place
            kind = _trait(data, mark, traits)
            stop = _after(data, mark)
            if kind & _IS_NARROW:
                stop = _pass(data, stop, end, traits, _IS_NARROW)
                stop = _pass(data, stop, end, traits, _IS_CLOSING)
            elif kind & _IS_WIDE:
                stop = _pass(data, stop, end, traits, _IS_NARROW | _IS_WIDE | _IS_CLOSING_WIDE)
            elif not kind & _IS_LINE_END:  # shares its first byte with one of them
                place = stop
                begins = False
                continue
            place = _pass(data, stop, end, traits, _IS_SPACE)
            if place == end:
                break
            begins = not kind & _IS_NARROW or _ends_in_bytes(
                data, start, mark, stop, place, traits, abbreviations, before_numbers
            )
    return starts[:count].copy()
