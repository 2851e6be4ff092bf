"""Words that may stand for each other: what MacBERT puts in the place of words (arXiv 2004.13922).

A word is a sequence of pieces, and is found by a hash of them. A similar word has as many pieces,
so that a text keeps its length.

    cat -> dog, cow; un ##do -> re ##do
    similar_hashes    hash(un ##do)  hash(cat)                       ascending
    similar_offsets   0              2          4                    one more than words
    similar_pieces    re ##do        dog  cow                        one word behind the other

Two sources: a file that says it, or the tokens themselves (:mod:`.cooccurrence`).
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from configs.schema import config
from preprocessing.annotations.settings import File
from preprocessing.draws import UInt64, bits
from preprocessing.storage import InputError
from preprocessing.tables.base import Arrays, Table
from preprocessing.tokens import TokenStore
from preprocessing.vocabulary import Vocabulary

MAX_PIECES = 8
"""Longer words have no similar ones."""

Word = tuple[int, ...]


def word_hashes(
    ids: NDArray[np.int64], starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> UInt64:
    """Hashes ``[words]`` of words of at most ``MAX_PIECES``, given where they lie in ``ids``."""
    hashes = np.zeros(len(starts), dtype=np.uint64)
    for piece in range(int(lengths.max(initial=0))):
        longer = lengths > piece
        hashes[longer] = bits(hashes[longer], ids[starts[longer] + piece], 0)
    return hashes


def similar_arrays(similar: Iterable[tuple[Word, Sequence[Word]]]) -> Arrays:
    """The table's arrays of words, each with its similar ones; the last entry of a word counts."""
    entries = {word: others for word, others in similar if others}
    assert all(len(other) == len(word) for word, others in entries.items() for other in others)
    lengths = np.array([len(word) for word in entries], dtype=np.int64)
    ids = np.array([piece for word in entries for piece in word], dtype=np.int64)
    hashes = word_hashes(ids, np.cumsum(lengths) - lengths, lengths)
    order = np.argsort(hashes)
    found = list(entries.values())
    flat = [[piece for other in found[one] for piece in other] for one in order.tolist()]
    offsets = np.cumsum([0, *map(len, flat)])
    pieces = np.array([piece for own in flat for piece in own], dtype=np.int32)
    return {
        "similar_hashes": hashes[order],
        "similar_offsets": offsets.astype(np.int64),
        "similar_pieces": pieces,
    }


class SimilarTable(Table):
    """What both sources come to."""

    name: ClassVar[str] = "similar"

    def arrays(self) -> tuple[str, ...]:
        """See the module."""
        return ("similar_hashes", "similar_offsets", "similar_pieces")


@config
class GivenSimilar(SimilarTable):
    """A file of similar words: ``word <tab> similar word <tab> ...`` a line, UTF-8, ``.gz`` too.

    Those with another number of pieces than the word are left out.
    """

    kind: Literal["given"]
    path: File

    def files(self) -> tuple[Path, ...]:
        """That file."""
        return (self.path,)

    def expected_values(self, vocabulary: Vocabulary) -> int:
        """As many as the file has bytes, at most."""
        return self.path.stat().st_size

    def count(self, vocabulary: Vocabulary, store: TokenStore, documents: range) -> Arrays:
        """Nothing: the tokens do not matter."""
        return {}

    def build(self, vocabulary: Vocabulary, store: TokenStore, counts: Iterable[Arrays]) -> Arrays:
        """The words of the file as the vocabulary cuts them.

        Raises:
            InputError: it cannot be read, or has no word with a similar one of as many pieces.
        """
        lines = [[part.strip() for part in line.split("\t")] for line in _lines(self.path)]
        arrays = similar_arrays(cut_words(vocabulary, [line for line in lines if len(line) > 1]))
        if not len(arrays["similar_hashes"]):
            raise InputError(
                f"{self.path}: no word has a similar one that this vocabulary cuts into as many "
                "pieces; each line has a word and similar ones, with tabs between them"
            )
        return arrays


def cut_words(
    vocabulary: Vocabulary, lines: Sequence[Sequence[str]]
) -> Iterator[tuple[Word, list[Word]]]:
    """Words, the first of each line, and the similar ones of as many pieces.

    Vocabularies that tell words within a text from its first one (byte-level BPE) cut them twice.
    """
    flat = [word for line in lines for word in line]
    for before in ("", " "):
        cut = iter(vocabulary.encode([before + word for word in flat]))
        for line in lines:
            first, *others = (tuple(next(cut)) for _ in line)
            if 0 < len(first) <= MAX_PIECES and vocabulary.unknown_id not in first:
                alike = [
                    other
                    for other in dict.fromkeys(others)
                    if len(other) == len(first)
                    and other != first
                    and vocabulary.unknown_id not in other
                ]
                yield first, alike


def _lines(path: Path) -> Iterator[str]:
    number = 0
    try:
        with path.open("rb") as raw:
            for number, line in enumerate(
                gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw, start=1
            ):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}:{number}: not UTF-8; convert the file") from error
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot read the similar words: {error}") from error
