"""Sequences of words that are looked for: those of evaluation sets, and lists of words.

Words are compared by their letters, marks and digits in lower case, so that neither punctuation
nor white space hides a sequence ("Don't," is "dont").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preprocessing.cleaning.ngrams import found_in, hash_table, ngram_hashes
from preprocessing.cleaning.scanning import Scan, per_text
from preprocessing.texts import Texts


@dataclass(frozen=True)
class FoldedWords:
    """The words of a column of texts without those that have neither letter nor digit.

    Attributes:
        hashes: uint64 ``[words]``.
        offsets: int64 ``[texts + 1]``.
    """

    hashes: NDArray[np.uint64]
    offsets: NDArray[np.int64]

    @staticmethod
    def of(scan: Scan) -> FoldedWords:
        """The ones of a scan."""
        kept = scan.folded != 0
        offsets = np.zeros(len(scan.word_offsets), np.int64)
        np.cumsum(per_text(kept, scan.word_offsets), out=offsets[1:])
        return FoldedWords(scan.folded[kept], offsets)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Words by text, ``[texts]``."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class _Keys:
    """The sequences of one number of words."""

    keys: NDArray[np.uint64]  # ascending
    sets: NDArray[np.uint64]  # of each, a bit a set
    table: NDArray[np.uint64]


MAX_SETS = 64


class WordSequences:
    """Named sets of texts, cut into the sequences of words that count as a match.

    Texts of at least ``ngram`` words are matched by each of their n-grams, shorter ones of at
    least ``min_words`` as a whole, and still shorter ones by texts that are nothing else.

    Args:
        sets: the texts of each set.
        ngram: words in a sequence.
        min_words: at most ``ngram``.
    """

    def __init__(self, sets: Sequence[Iterable[str]], *, ngram: int, min_words: int) -> None:
        assert len(sets) <= MAX_SETS
        assert 1 <= min_words <= ngram
        self._min_words = min_words
        self.num_texts = [0] * len(sets)
        found: dict[int, list[tuple[NDArray[np.uint64], int]]] = {}
        for number, texts in enumerate(sets):
            own: dict[int, list[NDArray[np.uint64]]] = {}
            for batch in _batches(texts):
                self.num_texts[number] += len(batch)
                for size, keys in _sequences(batch, ngram):
                    own.setdefault(size, []).append(keys)
            for size, parts in own.items():
                found.setdefault(size, []).append((np.unique(np.concatenate(parts)), number))
        self._keys = {size: _join(parts) for size, parts in sorted(found.items())}

    @property
    def num_sequences(self) -> int:
        """Different sequences."""
        return sum(len(keys.keys) for keys in self._keys.values())

    def matches(self, words: FoldedWords) -> NDArray[np.uint64]:
        """Which sets each text shares a sequence with, a bit a set, ``[texts]``."""
        matched = np.zeros(len(words.counts), np.uint64)
        for size, known in self._keys.items():
            grams = ngram_hashes(words.hashes, words.offsets, size)
            if size < self._min_words:
                grams[np.repeat(words.counts != size, words.counts)] = 0
            places = np.flatnonzero(found_in(grams, known.table))
            texts = np.searchsorted(words.offsets, places, side="right") - 1
            sets = known.sets[np.searchsorted(known.keys, grams[places])]
            np.bitwise_or.at(matched, texts, sets)
        return matched


_BATCH_CHARACTERS = 1 << 22


def _batches(texts: Iterable[str]) -> Iterable[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _sequences(texts: list[str], ngram: int) -> Iterable[tuple[int, NDArray[np.uint64]]]:
    """``(words, hashes)`` of the sequences in some texts, by their number of words."""
    words = FoldedWords.of(Scan.of(Texts.of(pa.array(texts, pa.large_string()))))
    sizes = np.minimum(words.counts, ngram)
    for size in np.unique(sizes[sizes > 0]).tolist():
        grams = ngram_hashes(words.hashes, words.offsets, size)
        grams = grams[np.repeat(sizes == size, words.counts)]
        yield size, np.unique(grams[grams != 0])


def _join(parts: Sequence[tuple[NDArray[np.uint64], int]]) -> _Keys:
    keys = np.unique(np.concatenate([own for own, _ in parts]))
    sets = np.zeros(len(keys), np.uint64)
    for own, number in parts:
        sets[np.searchsorted(keys, own)] |= np.uint64(1 << number)
    return _Keys(keys, sets, hash_table(keys))
