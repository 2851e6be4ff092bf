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
        kinds = np.full(NUM_POINTS, WORD, np.uint8)
        folded = np.full(NUM_POINTS, UNKNOWN, np.int32)
        listed = np.zeros(NUM_POINTS, np.bool_)
        if ideographs:
            for start, stop in _IDEOGRAPHS:
                listed[start:stop] = True
        plain: list[int] = []
        for point in range(NUM_POINTS):
            character = chr(point)
            category = unicodedata.category(character)
            if category in ("Cn", "Cs"):
                listed[point] = False
            elif listed[point]:
                kinds[point] = ALONE
            elif category[0] in "PZ" or category in ("Cc", "Cf") or point < 0x80:
                _ask_about(character, normalizer, splitter, kinds, folded)
            else:
                plain.append(point)
        _ask_about_all(plain, normalizer, splitter, folded, decomposes=decomposes)
        unified = listed & (kinds == ALONE)
        unified[0xF900:0xFB00] = unified[0x2F800:0x2FA20] = False  # these are decomposed
        folded[unified] = np.flatnonzero(unified)
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
    points: list[int],
    normalizer: Any,
    splitter: Any,
    folded: NDArray[np.int32],
    *,
    decomposes: bool,
) -> None:
    """Normalise many characters in one string and see that what they become never splits."""
    joined = normalizer.normalize_str("\n".join(map(chr, points)))
    forms = joined.replace("\n", " ").split(" ")
    if len(forms) != len(points):  # no library we know of; then none of them is plain
        return
    parts = splitter.pre_tokenize_str("".join(form for form in forms if len(form) == 1))
    split_off = {part for part, _ in parts if len(part) == 1}
    for point, form in zip(points, forms, strict=True):
        if not form:
            folded[point] = DROPPED
        elif len(form) == 1 and form not in split_off:
            first = unicodedata.normalize("NFD", chr(point))[0]
            if not decomposes or not (unicodedata.combining(first) or unicodedata.combining(form)):
                folded[point] = ord(form)
