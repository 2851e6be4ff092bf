"""Similar words of the training tokens themselves: those that stand among the same words.

Of the most frequent words it is counted how often each stands within ``window`` words of each of
the still more frequent ones, its contexts. The positive pointwise mutual information of these
counts, with the contexts' shares to the power of 0.75, is cut to ``dimensions`` singular vectors,
each times the root of its singular value (Levy, Goldberg and Dagan, TACL 2015), and words are as
similar as the angle between their rows is small.

Memory: ``num_words * num_contexts`` counts, ``num_contexts ** 2`` numbers, and the words kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import pydantic
from numpy.typing import NDArray

from configs.schema import config
from preprocessing.draws import UInt64
from preprocessing.tables.base import Arrays
from preprocessing.tables.similar import (
    MAX_PIECES,
    SimilarTable,
    Word,
    similar_arrays,
    word_hashes,
)
from preprocessing.tokens import TokenStore
from preprocessing.vocabulary import Vocabulary

Positive = Annotated[int, pydantic.Field(ge=1)]

_TOKENS_AT_A_TIME = 1 << 20
_KEPT_OF_A_SHARD = 8
"""Times ``num_words``: rarer words of a shard are forgotten."""
_ROWS_AT_A_TIME = 1024
_SMOOTHING = 0.75


@config
class CooccurringSimilar(SimilarTable):
    """Words that stand among the same words.

    Attributes:
        num_words: the most frequent words have similar ones, and are ones.
        num_contexts: the most frequent of them are what others are known by.
        window: words to either side that count.
        num_similar: of each word, at most.
        min_similarity: cosine below which a word is not similar.
        max_tokens: so many are read, in documents evenly spread, to count neighbours.
    """

    kind: Literal["cooccurring"]
    num_words: Positive = 20_000
    num_contexts: Positive = 2_000
    window: Positive = 3
    dimensions: Positive = 100
    num_similar: Positive = 5
    min_similarity: Annotated[float, pydantic.Field(ge=-1.0, le=1.0)] = 0.4
    max_tokens: Positive = 100_000_000

    def __post_init__(self) -> None:
        if self.num_contexts > self.num_words:
            raise ValueError("num_contexts must not exceed num_words: contexts are words, too")

    def expected_values(self, vocabulary: Vocabulary) -> int:
        """Words of two pieces."""
        return self.num_words * (2 + 2 * self.num_similar)

    def count(self, vocabulary: Vocabulary, store: TokenStore, documents: range) -> Arrays:
        """The most frequent words of one shard, and how many tokens it has."""
        known, num_tokens = Words.none(), 0
        for text in read_texts(store, documents):
            known = known.plus(Words.of(text)).most_frequent(_KEPT_OF_A_SHARD * self.num_words)
            num_tokens += len(text.ids)
        return {"num_tokens": np.array([num_tokens]), **known.arrays()}

    def build(self, vocabulary: Vocabulary, store: TokenStore, counts: Iterable[Arrays]) -> Arrays:
        """The similar words of the most frequent ones."""
        known, num_tokens = Words.none(), 0
        for own in counts:
            num_tokens += int(own["num_tokens"][0])
            more = Words(own["hashes"], own["counts"], own["offsets"], own["pieces"])
            known = known.plus(more).most_frequent(_KEPT_OF_A_SHARD * self.num_words)
        known = known.without(vocabulary.unknown_id).most_frequent(self.num_words)
        read = round(store.num_documents * min(1.0, self.max_tokens / max(1, num_tokens)))
        spread = (np.arange(read) * store.num_documents // max(1, read)).tolist()
        neighbours = count_neighbours(
            read_texts(store, spread),
            known,
            min(self.num_contexts, len(known.counts)),
            self.window,
        )
        vectors = word_vectors(neighbours, self.dimensions)
        words, lengths = known.words(), np.diff(known.offsets)
        similar: list[tuple[Word, list[Word]]] = []
        for length in np.unique(lengths).tolist():
            alike = np.flatnonzero(lengths == length).tolist()
            nearest = nearest_rows(vectors[alike], self.num_similar, self.min_similarity)
            similar += [
                (words[one], [words[alike[other]] for other in others])
                for one, others in zip(alike, nearest, strict=True)
            ]
        return similar_arrays(similar)


@dataclass(frozen=True)
class Text:
    """Tokens of some documents, and their words of at most ``MAX_PIECES``.

    ``documents`` says of which document each word is, ``[words]``, counted from anywhere.
    """

    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    documents: NDArray[np.int64]


def read_texts(store: TokenStore, documents: Iterable[int]) -> Iterator[Text]:
    """Some documents, about a million tokens at a time."""
    ids: list[NDArray[np.int64]] = []
    begins: list[NDArray[np.bool_]] = []
    size = 0
    for document in documents:
        own, own_begins = store.ids(document).astype(np.int64), store.word_starts(document).copy()
        own_begins[:1] = True
        ids.append(own)
        begins.append(own_begins)
        size += len(own)
        if size >= _TOKENS_AT_A_TIME:
            yield _joined(ids, begins)
            ids, begins, size = [], [], 0
    if ids:
        yield _joined(ids, begins)


def _joined(ids: list[NDArray[np.int64]], begins: list[NDArray[np.bool_]]) -> Text:
    starts = np.flatnonzero(np.concatenate(begins))
    sizes = np.array([len(own) for own in ids])
    lengths = np.diff(starts, append=sizes.sum())
    fit = lengths <= MAX_PIECES
    documents = np.searchsorted(np.cumsum(sizes), starts, side="right")
    return Text(np.concatenate(ids), starts[fit], lengths[fit], documents[fit])


@dataclass(frozen=True)
class Words:
    """Words and how often they occur, in the order of their hashes.

    Attributes:
        hashes: ``[words]``, ascending.
        counts: ``[words]``.
        offsets: where the pieces of each begin, and the last ones end, ``[words + 1]``.
        pieces: of all words.
    """

    hashes: UInt64
    counts: NDArray[np.int64]
    offsets: NDArray[np.int64]
    pieces: NDArray[np.int64]

    @staticmethod
    def none() -> Words:
        """No words."""
        no = np.zeros(0, dtype=np.int64)
        return Words(no.astype(np.uint64), no, np.zeros(1, dtype=np.int64), no)

    @staticmethod
    def of(text: Text) -> Words:
        """The words of a text."""
        hashes, firsts, counts = np.unique(
            word_hashes(text.ids, text.starts, text.lengths), return_index=True, return_counts=True
        )
        lengths = text.lengths[firsts]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        pieces = text.ids[np.repeat(text.starts[firsts], lengths) + within]
        return Words(hashes, counts, offsets, pieces)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By name, as the constructor takes them."""
        return {
            "hashes": self.hashes,
            "counts": self.counts,
            "offsets": self.offsets,
            "pieces": self.pieces,
        }

    def words(self) -> list[Word]:
        """The words themselves."""
        return [tuple(own.tolist()) for own in np.split(self.pieces, self.offsets[1:-1])]

    def ranks(self) -> NDArray[np.int64]:
        """0 for the most frequent word, ``[words]``; of equal ones that of the smaller hash."""
        ranks = np.empty(len(self.counts), dtype=np.int64)
        ranks[np.argsort(-self.counts, kind="stable")] = np.arange(len(ranks))
        return ranks

    def plus(self, other: Words) -> Words:
        """The words of both."""
        both = Words(
            hashes=np.concatenate([self.hashes, other.hashes]),
            counts=np.concatenate([self.counts, other.counts]),
            offsets=np.concatenate([self.offsets, self.offsets[-1] + other.offsets[1:]]),
            pieces=np.concatenate([self.pieces, other.pieces]),
        )
        hashes, firsts, members = np.unique(both.hashes, return_index=True, return_inverse=True)
        counts = np.zeros(len(hashes), dtype=np.int64)
        np.add.at(counts, members, both.counts)
        return replace(both._chosen(firsts), counts=counts)

    def most_frequent(self, count: int) -> Words:
        """At most so many."""
        return self._chosen(np.flatnonzero(self.ranks() < count))

    def without(self, piece: int | None) -> Words:
        """Those in which a piece does not occur."""
        inside = np.concatenate([[0], np.cumsum(self.pieces == (-1 if piece is None else piece))])
        return self._chosen(np.flatnonzero(inside[self.offsets[1:]] == inside[self.offsets[:-1]]))

    def _chosen(self, members: NDArray[np.int64]) -> Words:
        lengths = np.diff(self.offsets)[members]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        pieces = self.pieces[np.repeat(self.offsets[members], lengths) + within]
        return Words(self.hashes[members], self.counts[members], offsets, pieces)


def count_neighbours(
    texts: Iterable[Text], known: Words, num_contexts: int, window: int
) -> NDArray[np.uint32]:
    """How often each word has each of the most frequent ones near, ``[words, contexts]``.

    Words that are not known count as steps between others; documents do not touch.
    """
    counts = np.zeros((len(known.counts), num_contexts), dtype=np.uint32)
    flat, ranks = counts.reshape(-1), known.ranks()
    for text in texts if len(ranks) else ():
        hashes = word_hashes(text.ids, text.starts, text.lengths)
        rows = np.minimum(np.searchsorted(known.hashes, hashes), len(known.hashes) - 1)
        is_known = known.hashes[rows] == hashes
        columns = ranks[rows]
        is_context = is_known & (columns < num_contexts)
        for step in range(1, window + 1):
            left, right = slice(None, -step), slice(step, None)
            near = text.documents[left] == text.documents[right]
            for word, other in ((left, right), (right, left)):
                pairs = near & is_known[word] & is_context[other]
                cells = rows[word][pairs] * num_contexts + columns[other][pairs]
                np.add.at(flat, cells, np.uint32(1))
    return counts


def word_vectors(counts: NDArray[np.uint32], dimensions: int) -> NDArray[np.float64]:
    """Rows of length 1, or 0 of words without neighbours, ``[words, at most dimensions]``.

    Args:
        counts: of neighbours, ``[words, contexts]``.
    """
    of_words = counts.sum(axis=1, dtype=np.float64)[:, None]
    shares = counts.sum(axis=0, dtype=np.float64) ** _SMOOTHING
    shares /= max(shares.sum(), 1.0)
    blocks = [slice(at, at + _ROWS_AT_A_TIME) for at in range(0, len(counts), _ROWS_AT_A_TIME)]

    def information(block: slice) -> NDArray[np.float64]:
        expected = np.maximum(of_words[block] * shares, np.finfo(np.float64).tiny)
        found: NDArray[np.float64] = np.log(np.maximum(counts[block] / expected, 1.0))
        return found

    gram = np.zeros((counts.shape[1], counts.shape[1]))
    for block in blocks:
        rows = information(block)
        gram += rows.T @ rows
    squares, axes = np.linalg.eigh(gram)
    kept = np.flatnonzero(squares > 1e-9 * squares.max(initial=0.0))[-dimensions:]
    # M V = U S, so that U S^(1/2) = M V S^(-1/2), where S^2 are the squares.
    axes = axes[:, kept] * squares[kept] ** -0.25
    vectors = np.concatenate(
        [np.zeros((0, len(kept))), *(information(one) @ axes for one in blocks)]
    )
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1.0)


def nearest_rows(
    vectors: NDArray[np.float64], count: int, min_similarity: float
) -> list[list[int]]:
    """Of each row at most so many others, the nearest first, of rows ``[rows, dimensions]``.

    Similarities are compared to a millionth, so that no library's rounding decides.
    """
    nearest: list[list[int]] = []
    for start in range(0, len(vectors), _ROWS_AT_A_TIME):
        block = vectors[start : start + _ROWS_AT_A_TIME]
        similarities = np.round(block @ vectors.T, 6)
        similarities[np.arange(len(block)), start + np.arange(len(block))] = -np.inf
        for own in similarities:
            near = np.flatnonzero(own >= min_similarity)
            nearest.append(near[np.argsort(-own[near], kind="stable")[:count]].tolist())
    return nearest
