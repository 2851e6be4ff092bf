"""Sentence reordering (ERNIE 2.0, arXiv 1907.12412, section 3.2.2): put a paragraph together again.

A paragraph, consecutive whole sentences of one document that fill a sequence, is split at random
into 1 to m segments, which are shown in random order; the class says which order it is, among all
orders of all numbers of segments: 1! + 2! + ... + m! classes, 9 for m = 3.

    segments   order shown -> class
    1          0 -> 0
    2          01 -> 1    10 -> 2
    3          012 -> 3   021 -> 4   102 -> 5   120 -> 6   201 -> 7   210 -> 8

So ``class = 1! + ... + (s - 1)! +`` the rank of the order among the s! of s segments, as in a
dictionary; the order names, from left to right, where the segments stood before.

    sentences a b | c | d e f | g, three segments a b | c d e f | g shown in the order 1 2 0:
    [CLS] c d e f [SEP] g [SEP] a b [SEP]       class 6

The number of segments is uniform in 1..m, their borders among the borders of sentences, and the
order among all orders; nobody has published more. Every segment ends in the frame's separator, as
"not split" and "in order" could not be told apart otherwise. Segments after the first one shown
have segment id 1. A paragraph of fewer than m sentences has at most as many segments; a sentence
longer than a sequence is cut, and the pieces count as sentences.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
import pydantic
from numpy.typing import NDArray

from configs.schema import config
from preprocessing.draws import bits, integers
from preprocessing.layouts.base import Cut, Layout, Material, Spans, sequence_id

_SEGMENTS, _ORDER, _BORDERS = 0, 1, 2


@config
class SentenceReorderingConfig(Layout):
    """Paragraphs in shuffled segments.

    Attributes:
        max_segments: the m of the paper; labels are single bytes, so 5! orders are too many.
    """

    kind: Literal["sentence_reordering"]
    max_segments: Annotated[int, pydantic.Field(ge=2, le=4)] = 3

    @property
    def num_classes(self) -> int:
        """1! + 2! + ... + m!."""
        return first_class(self.max_segments + 1)

    def label(self) -> str:
        """The class of the order in which the segments are shown."""
        return "sentence_reordering"

    def cut(self, material: Material) -> Cut:
        """Paragraphs of at most ``length`` tokens, the specials of m segments included."""
        most = material.room(self.max_segments)
        ids, labels, counts = [], [], []
        pieces: list[tuple[int, int, int]] = []
        for document in material.documents:
            for index, borders in enumerate(
                paragraphs(material.store.sentence_lengths(document), most)
            ):
                ids.append(sequence_id(document, index))
                key = material.keys("reordering", np.array(ids[-1:]))
                segments, label = self.shuffled(borders, key)
                labels.append(label)
                counts.append(len(segments))
                pieces += [(document, start, stop) for start, stop in segments]
        table = np.array(pieces, dtype=np.int64).reshape(-1, 3)
        return Cut(
            ids=np.array(ids, dtype=np.uint64),
            pieces=Spans(table[:, 0], table[:, 1], table[:, 2]),
            offsets=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]),
            first_pieces=np.ones(len(ids), dtype=np.int64),
            labels=np.array(labels, dtype=np.int64),
            frame=material.frame,
        )

    def shuffled(
        self, borders: NDArray[np.int64], key: NDArray[np.uint64]
    ) -> tuple[list[tuple[int, int]], int]:
        """The segments of one paragraph as they are shown, and the class.

        Args:
            borders: where its sentences begin, and where the last one ends, ``[sentences + 1]``.
            key: of its draws, ``[1]``.
        """
        most = min(self.max_segments, len(borders) - 1)
        count = 1 + int(integers(key, 0, _SEGMENTS, most)[0])
        inner = borders[1:-1]
        chosen = np.argsort(bits(key, np.arange(len(inner)), _BORDERS), kind="stable")[: count - 1]
        ends = np.concatenate([borders[:1], np.sort(inner[chosen]), borders[-1:]]).tolist()
        rank = int(integers(key, 0, _ORDER, math.factorial(count))[0])
        segments = [(ends[place], ends[place + 1]) for place in order_of(count, rank)]
        return segments, first_class(count) + rank


def first_class(segments: int) -> int:
    """The class of so many segments in order: 1! + ... + (segments - 1)!."""
    return sum(math.factorial(fewer) for fewer in range(1, segments))


def order_of(count: int, rank: int) -> list[int]:
    """The order of a rank among those of ``count`` things, as in a dictionary.

    >>> [order_of(3, rank) for rank in (0, 1, 5)]
    [[0, 1, 2], [0, 2, 1], [2, 1, 0]]
    """
    left, order = list(range(count)), []
    for rest in range(count - 1, -1, -1):
        place, rank = divmod(rank, math.factorial(rest))
        order.append(left.pop(place))
    return order


def paragraphs(lengths: NDArray[np.int32], most: int) -> Iterator[NDArray[np.int64]]:
    """Consecutive sentences of a document that fill ``most`` tokens, none left out.

    Args:
        lengths: tokens of each sentence; longer ones than ``most`` are cut.

    Yields:
        The borders of the sentences in tokens of the document, ``[sentences + 1]``.
    """
    borders = [0]
    for length in lengths.tolist():
        end = borders[-1] + length
        borders += [*range(borders[-1] + most, end, most), end]
    begin = 0
    while begin < len(borders) - 1:
        stop = begin + 1
        while stop + 1 < len(borders) and borders[stop + 1] - borders[begin] <= most:
            stop += 1
        yield np.array(borders[begin : stop + 1], dtype=np.int64)
        begin = stop
