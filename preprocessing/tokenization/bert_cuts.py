"""Where BERT's basic tokenizer surely cuts, and what it makes of single characters.

Its steps are: drop control characters and turn white space into spaces (``clean_text``); put
spaces around ideographs (``handle_chinese_chars``); decompose canonically and drop the
non-spacing marks (``strip_accents``); lower-case; split at white space and around every
punctuation mark. Each but the decomposition looks at one character at a time. The decomposition
(The Unicode Standard, section 3.11) replaces single characters, then reorders marks, and no mark
moves across a *starter*, a character of combining class 0. Therefore:

- At a starter that always becomes white space, a text may be cut and the starter dropped; at one
  that always becomes a word by itself, it may be cut on both sides. What stands around such a
  character changes nothing about it, and it nothing about them.
- A word of characters that each become one starter, or nothing at all, becomes what these are,
  one after the other: there is nothing left to reorder but what is dropped.

Which characters are of these kinds is asked of the library itself, one by one or all of them in
one string; characters that Python does not know are given to the library with all of their word.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.tokenization.cuts import ALONE, NUM_POINTS, SPACE, WORD

UNKNOWN, DROPPED = -1, -2

_IDEOGRAPHS = (
    (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, 0x2A6E0), (0x2A700, 0x2B740),
    (0x2B740, 0x2B820), (0x2B920, 0x2CEB0), (0x2F800, 0x2FA20),
)  # fmt: skip


@dataclass(frozen=True)
class Characters:
    """What the basic tokenizer does to each character.

    Attributes:
        kinds: uint8 ``[NUM_POINTS]``: ``SPACE`` is cut out, ``ALONE`` is a chunk, ``WORD`` else.
        folded: int32 ``[NUM_POINTS]``: the one character it becomes, ``DROPPED``, or ``UNKNOWN``
            where it is not that simple.
    """

    kinds: NDArray[np.uint8]
    folded: NDArray[np.int32]

    @staticmethod
    def of(normalizer: Any, splitter: Any, *, ideographs: bool, decomposes: bool) -> Characters:
        """Ask the library.

        Args:
            normalizer: ``BertNormalizer``.
            splitter: ``BertPreTokenizer``.
            ideographs: the normalizer handles Chinese characters.
            decomposes: it strips accents.
        """
        categories = np.frombuffer(
            "".join(map(unicodedata.category, map(chr, range(NUM_POINTS)))).encode(), "S2"
        )
        known = (categories != b"Cn") & (categories != b"Cs")
        listed = np.zeros(NUM_POINTS, np.bool_)
        if ideographs:
            for start, stop in _IDEOGRAPHS:
                listed[start:stop] = known[start:stop]
        kinds = np.full(NUM_POINTS, WORD, np.uint8)
        kinds[listed] = ALONE
        folded = np.full(NUM_POINTS, UNKNOWN, np.int32)
        special = np.isin(categories.astype("S1"), (b"P", b"Z"))
        special |= np.isin(categories, (b"Cc", b"Cf"))
        special[:0x80] = True
        for point in np.flatnonzero(known & ~listed & special).tolist():
            _ask_about(chr(point), normalizer, splitter, kinds, folded)
        plain = np.flatnonzero(known & ~listed & ~special)
        _ask_about_all(plain, normalizer, splitter, folded, decomposes=decomposes)
        listed[0xF900:0xFB00] = listed[0x2F800:0x2FA20] = False  # these are decomposed
        folded[listed] = np.flatnonzero(listed)
        return Characters(kinds, folded)


def _ask_about(
    character: str,
    normalizer: Any,
    splitter: Any,
    kinds: NDArray[np.uint8],
    folded: NDArray[np.int32],
) -> None:
    """Put one character between two letters and look at what becomes of them."""
    point = ord(character)
    becomes = normalizer.normalize_str(f"a{character}a")
    parts = [part for part, _ in splitter.pre_tokenize_str(becomes)]
    starter = unicodedata.combining(unicodedata.normalize("NFD", character)[0]) == 0
    match parts:
        case ["a", "a"] if starter:
            kinds[point] = SPACE
        case ["a", alone, "a"] if starter and len(alone) == 1:
            kinds[point] = ALONE
            folded[point] = ord(alone)
        case ["aa"]:
            folded[point] = DROPPED
        case [word] if len(word) == 3 and starter:
            folded[point] = ord(word[1])


def _ask_about_all(
    points: NDArray[np.int64],
    normalizer: Any,
    splitter: Any,
    folded: NDArray[np.int32],
    *,
    decomposes: bool,
) -> None:
    """Normalise many characters in one string and see that what they become never splits."""
    joined = "\n".join(map(chr, points.tolist()))
    forms, lengths = _lines(normalizer.normalize_str(joined).replace(" ", "\n"))
    if len(forms) != len(points):  # no library we know of; then none of them is plain
        return
    folded[points[lengths == 0]] = DROPPED
    alike = lengths == 1
    points, forms = points[alike], forms[alike]
    parts = splitter.pre_tokenize_str("".join(map(chr, forms.tolist())))
    keeps = ~np.isin(forms, [ord(part) for part, _ in parts if len(part) == 1])
    if decomposes:
        firsts, _ = _lines(unicodedata.normalize("NFD", joined))
        for found in (firsts[alike], forms):
            keeps &= np.array([*map(unicodedata.combining, map(chr, found.tolist()))]) == 0
    folded[points[keeps]] = forms[keeps]


def _lines(text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first character and the length of each line; of an empty one the line end, and 0."""
    codes = np.frombuffer(f"{text}\n".encode("utf-32-le"), "<u4").astype(np.int64)
    ends = np.flatnonzero(codes == ord("\n"))
    starts = np.concatenate([[0], ends[:-1] + 1])
    return codes[starts], ends - starts
