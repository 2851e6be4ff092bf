"""Entries of lexicons in the texts of a column, by an Aho-Corasick automaton over their bytes.

At every place the leftmost match wins, of those that begin there the longest, and the search goes
on behind it. A match begins and ends where a word may: not between two letters or digits of a
script with spaces, nor before a combining mark. Chinese, Japanese, Korean, Thai and their like
have no such bound. White space matches as it is written: an entry is not found across a line end.

    lexicon: "new york", "york times"; text: "the new york times"  ->  "new york"
    lexicon: "art", "art deco";        text: "art decoration"      ->  "art"
"""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.annotations.matching import choose, fold, folding, traits
from preprocessing.annotations.settings import LexiconConfig
from preprocessing.storage import InputError
from preprocessing.texts import Texts

_BYTES_AT_ONCE = 2**18


class Lexicon:
    """The entries of some files, matched as one lexicon.

    Raises:
        InputError: a file cannot be read or has no entry, or the library is not installed.
    """

    def __init__(self, files: Iterable[LexiconConfig]) -> None:
        exact: set[bytes] = set()
        folded: set[bytes] = set()
        for file in files:
            own = {entry.encode() for entry in read_entries(file)}
            if file.case_sensitive:
                exact |= own
            else:
                folded |= {bytes(fold(np.frombuffer(one, np.uint8), folding())) for one in own}
        self.num_entries = len(exact) + len(folded)
        self._exact = _automaton(exact) if exact else None
        self._folded = _automaton(folded) if folded else None
        self._longest = max(map(len, exact | folded), default=0)

    def spans(self, texts: Texts) -> NDArray[np.int64]:
        """The entries found: int64 ``[spans, 2]``, begin and end in ``texts.data``, ascending."""
        place, end = int(texts.offsets[0]), int(texts.offsets[-1])
        found = [np.zeros((0, 2), np.int64)]
        free = place
        while place < end:
            stop = _character_at(texts.data, min(place + _BYTES_AT_ONCE, end))
            # What begins in this piece may end in the next.
            window = texts.data[place : _character_at(texts.data, min(stop + self._longest, end))]
            matches = self._matches(window) + place
            matches = matches[matches[:, 0] < stop]
            chosen = choose(texts.data, texts.offsets, traits(), matches, free)
            if len(chosen):
                free = int(chosen[-1, 1])
                found.append(chosen)
            place = stop
        return np.concatenate(found)

    def _matches(self, data: NDArray[np.uint8]) -> NDArray[np.int64]:
        """All matches, whatever overlaps: int64 ``[matches, 2]``, ascending, longer ones first."""
        found: list[tuple[int, int, int]] = []
        if self._exact:
            found += self._exact.find_matches_as_indexes(data, overlapping=True)
        if self._folded:
            haystack = fold(data, folding())
            found += self._folded.find_matches_as_indexes(haystack, overlapping=True)
        flat = itertools.chain.from_iterable(found)
        matches = np.fromiter(flat, np.int64, 3 * len(found)).reshape(-1, 3)[:, 1:]
        return np.ascontiguousarray(matches[np.lexsort((-matches[:, 1], matches[:, 0]))])


def _character_at(data: NDArray[np.uint8], place: int) -> int:
    """The first place at or after one where a character begins, or the end."""
    while place < len(data) and data[place] & 0xC0 == 0x80:
        place += 1
    return place


def _automaton(entries: set[bytes]) -> Any:
    try:
        from ahocorasick_rs import BytesAhoCorasick, Implementation
    except ImportError as error:
        raise InputError(
            "lexicons of phrases and entities need the library ahocorasick_rs: "
            "pip install lexmill[annotations]"
        ) from error
    # The smaller of the two, and the faster one.
    return BytesAhoCorasick(sorted(entries), implementation=Implementation.ContiguousNFA)


def read_entries(file: LexiconConfig) -> list[str]:
    """The entries of a lexicon that are long enough, in the order of the file.

    Raises:
        InputError: the file cannot be read, is not UTF-8, or has no such entry.
    """
    entries = [
        entry
        for line in _lines(file)
        if len(entry := line.partition("\t")[0].strip()) >= file.min_characters
    ]
    if not entries:
        raise InputError(
            f"{file.path}: not one entry of {file.min_characters} characters or more; "
            "a lexicon has one entry a line, before the first tab"
        )
    return entries


def _lines(file: LexiconConfig) -> Iterator[str]:
    number = 0
    try:
        with file.path.open("rb") as raw:
            lines = gzip.GzipFile(fileobj=raw) if file.path.suffix == ".gz" else raw
            for number, line in enumerate(lines, start=1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{file.path}:{number}: not UTF-8; convert the lexicon") from error
    except (OSError, EOFError) as error:
        raise InputError(f"{file.path}: cannot read the lexicon: {error}") from error
