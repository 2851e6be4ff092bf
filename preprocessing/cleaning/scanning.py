"""One pass over a column of texts that finds their words and lines, for all filters.

A *word* is a run of characters without white space; a character of a script that is written
without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) is a word by itself, and punctuation
that touches one belongs to no word:

    "Two words"    ->  "Two" "words"
    "他说：“hi”。"  ->  "他" "说" "：“hi”。"
    "他说。"        ->  "他" "说"

A *line* is what stands between line ends and is not blank; a blank line begins a *paragraph*.
"""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from preprocessing.compiled import BYTES, PLACES, compiled
from preprocessing.texts import Texts

_SPACE, _LETTER, _FOLDED, _ALONE = 1, 2, 4, 8
_BULLETS = frozenset("•‣⁃◦∙▪●■*-")
_BULLET = 16
_WITHOUT_SPACES = (
    *((0x0E01, 0x0E4E), (0x0E81, 0x0EDF), (0x1000, 0x109F), (0x1780, 0x17DD)),
    *((0x3005, 0x3007), (0x3021, 0x3029), (0x3041, 0x30FF), (0x31F0, 0x31FF)),
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x20000, 0x3FFFF)),
)


@dataclass(frozen=True)
class Scan:
    """The words and lines of a column of texts, those of text i at ``offsets[i]:offsets[i + 1]``.

    Attributes:
        word_offsets: int64 ``[texts + 1]``.
        words: uint64 ``[words]``, a hash of each word as it stands.
        folded: uint64 ``[words]``, a hash of its letters, marks and digits in lower case; 0 where
            it has none.
        word_lengths: int32 ``[words]``, in characters.
        alphabetic: bool ``[words]``, whether it holds a letter.
        alone: bool ``[words]``, whether it is a character of a script without spaces.
        line_offsets: int64 ``[texts + 1]``.
        line_starts: int64 ``[lines]``, the place of its first character that is no white space.
        line_ends: int64 ``[lines]``, the place behind the last one.
        line_lengths: int32 ``[lines]``, in characters, without white space around.
        line_words: int64 ``[lines + 1]``, the index of its first word.
        last: int32 ``[lines]``, its last character.
        bullet: bool ``[lines]``, whether it begins with a bullet.
        ellipsis: bool ``[lines]``, whether it ends in an ellipsis.
        paragraph: bool ``[lines]``, whether it begins a paragraph.
        hash_signs: int64 ``[texts]``.
        ellipses: int64 ``[texts]``, "..." or "…".
    """

    word_offsets: NDArray[np.int64]
    words: NDArray[np.uint64]
    folded: NDArray[np.uint64]
    word_lengths: NDArray[np.int32]
    alphabetic: NDArray[np.bool_]
    alone: NDArray[np.bool_]
    line_offsets: NDArray[np.int64]
    line_starts: NDArray[np.int64]
    line_ends: NDArray[np.int64]
    line_lengths: NDArray[np.int32]
    line_words: NDArray[np.int64]
    last: NDArray[np.int32]
    bullet: NDArray[np.bool_]
    ellipsis: NDArray[np.bool_]
    paragraph: NDArray[np.bool_]
    hash_signs: NDArray[np.int64]
    ellipses: NDArray[np.int64]

    @staticmethod
    def of(texts: Texts) -> Scan:
        """Find them, in one pass."""
        classes, lower = _characters()
        num_bytes = int(texts.offsets[-1] - texts.offsets[0])
        room = num_bytes // 2 + len(texts) + 1  # every second byte ends a word or a line at most
        word_offsets, line_offsets = (np.zeros(len(texts) + 1, np.int64) for _ in range(2))
        hash_signs, ellipses = (np.zeros(len(texts), np.int64) for _ in range(2))
        words, folded = (np.empty(room, np.uint64) for _ in range(2))
        starts, ends, line_words = (np.empty(room + 1, np.int64) for _ in range(3))
        word_lengths, line_lengths, last = (np.empty(room, np.int32) for _ in range(3))
        alphabetic, alone = (np.empty(room, np.bool_) for _ in range(2))
        bullet, ellipsis, paragraph = (np.empty(room, np.bool_) for _ in range(3))
        _scan(
            texts.data,
            texts.offsets,
            classes,
            lower,
            word_offsets,
            words,
            folded,
            word_lengths,
            alphabetic,
            alone,
            line_offsets,
            starts,
            ends,
            line_lengths,
            line_words,
            last,
            bullet,
            ellipsis,
            paragraph,
            hash_signs,
            ellipses,
        )
        num_words, num_lines = word_offsets[-1], line_offsets[-1]
        return Scan(
            word_offsets=word_offsets,
            words=words[:num_words],
            folded=folded[:num_words],
            word_lengths=word_lengths[:num_words],
            alphabetic=alphabetic[:num_words],
            alone=alone[:num_words],
            line_offsets=line_offsets,
            line_starts=starts[:num_lines],
            line_ends=ends[:num_lines],
            line_lengths=line_lengths[:num_lines],
            line_words=line_words[: num_lines + 1],
            last=last[:num_lines],
            bullet=bullet[:num_lines],
            ellipsis=ellipsis[:num_lines],
            paragraph=paragraph[:num_lines],
            hash_signs=hash_signs,
            ellipses=ellipses,
        )

    @property
    def num_words(self) -> NDArray[np.int64]:
        """``[texts]``."""
        return np.diff(self.word_offsets)

    @property
    def num_lines(self) -> NDArray[np.int64]:
        """``[texts]``."""
        return np.diff(self.line_offsets)


def per_text(values: NDArray[np.generic], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of the values of each text, ``[texts]``."""
    sums = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=sums[1:])
    return sums[offsets[1:]] - sums[offsets[:-1]]


@functools.cache
def _characters() -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """What every code point is, and its lower case where that is one character."""
    classes = np.zeros(0x110000, np.uint8)
    lower = np.arange(0x110000, dtype=np.int32)
    alone = np.zeros(0x110000, np.bool_)
    for first, last in _WITHOUT_SPACES:
        alone[first : last + 1] = True
    for code in range(0x110000):
        character = chr(code)
        category = unicodedata.category(character)
        if category == "Cn":
            continue
        kind = 0
        if character.isspace():
            kind = _SPACE
        elif character.isalnum() or category[0] == "M":
            kind = _FOLDED
            if alone[code] and category != "Nd":
                kind |= _ALONE | _LETTER
            elif character.isalpha():
                kind |= _LETTER
            small = character.lower()
            if len(small) == 1:
                lower[code] = ord(small)
        elif character in _BULLETS:
            kind = _BULLET
        classes[code] = kind
    return classes, lower


_PRIME = np.uint64(0x9E3779B97F4A7C15)
_SEED = np.uint64(0xCBF29CE484222325)
_INT64 = numba.int64[::1]
_INT32 = numba.int32[::1]
_UINT64 = numba.uint64[::1]
_BOOL = numba.boolean[::1]


@compiled(numba.uint64(numba.uint64))
def _mix(value: np.uint64) -> np.uint64:
    """Every bit of a hash into all of them (the finaliser of MurmurHash3); never 0."""
    value ^= value >> np.uint64(33)
    value *= np.uint64(0xFF51AFD7ED558CCD)
    value ^= value >> np.uint64(33)
    value *= np.uint64(0xC4CEB9FE1A85EC53)
    value ^= value >> np.uint64(33)
    return value if value else np.uint64(1)


@compiled(
    numba.void(
        *(BYTES, PLACES, numba.uint8[::1], _INT32),
        *(_INT64, _UINT64, _UINT64, _INT32, _BOOL, _BOOL),
        *(_INT64, _INT64, _INT64, _INT32, _INT64),
        *(_INT32, _BOOL, _BOOL, _BOOL),
        *(_INT64, _INT64),
    )
)
def _scan(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    classes: NDArray[np.uint8],
    lower: NDArray[np.int32],
    word_offsets: NDArray[np.int64],
    words: NDArray[np.uint64],
    folded: NDArray[np.uint64],
    word_lengths: NDArray[np.int32],
    alphabetic: NDArray[np.bool_],
    alone: NDArray[np.bool_],
    line_offsets: NDArray[np.int64],
    line_starts: NDArray[np.int64],
    line_ends: NDArray[np.int64],
    line_lengths: NDArray[np.int32],
    line_words: NDArray[np.int64],
    last: NDArray[np.int32],
    bullet: NDArray[np.bool_],
    ellipsis: NDArray[np.bool_],
    paragraph: NDArray[np.bool_],
    hash_signs: NDArray[np.int64],
    ellipses: NDArray[np.int64],
) -> None:
    """Fill the arrays of a :class:`Scan`."""
    num_words = num_lines = 0
    for text in range(len(offsets) - 1):
        place, end = offsets[text], offsets[text + 1]
        # of the word that is being read
        exact = small = _SEED
        length = 0
        is_folded = is_alphabetic = touches = False
        # of the line
        in_line, begins_paragraph = False, True
        dots = trailing = line_length = 0
        line_end, last_code = place, np.int64(0)
        while place <= end:
            # A line end behind the last character ends what is open.
            start = place
            code = np.int64(10)
            if place < end:
                code = np.int64(data[place])
                if code < 0x80:
                    place += 1
                elif code < 0xE0:
                    code = (code & 0x1F) << 6 | data[place + 1] & 0x3F
                    place += 2
                elif code < 0xF0:
                    code = (
                        (code & 0x0F) << 12 | (data[place + 1] & 0x3F) << 6 | data[place + 2] & 0x3F
                    )
                    place += 3
                else:
                    code = (
                        (code & 0x07) << 18
                        | (data[place + 1] & 0x3F) << 12
                        | (data[place + 2] & 0x3F) << 6
                        | data[place + 3] & 0x3F
                    )
                    place += 4
            else:
                place += 1
            kind = classes[code]
            is_alone = kind & _ALONE != 0
            if (kind & _SPACE or is_alone) and length:
                if is_folded or not (touches or is_alone):
                    words[num_words] = _mix(exact)
                    folded[num_words] = _mix(small) if is_folded else np.uint64(0)
                    word_lengths[num_words] = length
                    alphabetic[num_words] = is_alphabetic
                    alone[num_words] = False
                    num_words += 1
                exact = small = _SEED
                length = 0
                is_folded = is_alphabetic = False
            if kind & _SPACE:
                touches = False
                if code == 10:
                    if in_line:
                        line_ends[num_lines] = line_end
                        last[num_lines] = last_code
                        line_lengths[num_lines] = line_length - trailing
                        ellipsis[num_lines] = dots >= 3 or last_code == 0x2026
                        num_lines += 1
                        begins_paragraph = False
                    else:
                        begins_paragraph = True
                    in_line = False
                elif in_line:
                    trailing += 1
                    line_length += 1
                continue
            if not in_line:
                in_line = True
                line_starts[num_lines] = start
                line_words[num_lines] = num_words
                bullet[num_lines] = kind & _BULLET != 0
                paragraph[num_lines] = begins_paragraph
                line_length = dots = 0
            elif trailing:
                dots = 0
            trailing = 0
            line_length += 1
            line_end, last_code = place, code
            if code == 46:
                dots += 1
                if dots % 3 == 0:
                    ellipses[text] += 1
            else:
                dots = 0
                if code == 0x2026:
                    ellipses[text] += 1
                elif code == 35:
                    hash_signs[text] += 1
            if is_alone:
                hashed = _mix((_SEED ^ np.uint64(code)) * _PRIME)
                words[num_words] = hashed
                folded[num_words] = hashed
                word_lengths[num_words] = 1
                alphabetic[num_words] = alone[num_words] = True
                num_words += 1
                touches = True
                continue
            length += 1
            exact = (exact ^ np.uint64(code)) * _PRIME
            if kind & _FOLDED:
                is_folded = True
                small = (small ^ np.uint64(lower[code])) * _PRIME
                if kind & _LETTER:
                    is_alphabetic = True
        word_offsets[text + 1] = num_words
        line_offsets[text + 1] = num_lines
    line_words[num_lines] = num_words
