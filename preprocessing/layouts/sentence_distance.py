"""Sentence distance (ERNIE 2.0, arXiv 1907.12412, section 3.2.2): how far apart are two segments?

    0  they follow each other in a document
    1  they stand in one document, and at least one sentence between them, in either order
    2  they come from different documents

Chunks of a document are gathered and split as for next-sentence prediction (:mod:`.pairs`); B is
the rest of the chunk (0), or a run of sentences from a random one of the same document (1) or of
another (2). The sentences of a chunk that were not used are given back.

    sentences s0 ... s6, A = s2 s3:    B = s4 ...    0       s4 is next
                                       B = s5 ...    1       behind A, s4 between them
                                       B = s0        1       before A, s1 between them

The class is drawn uniformly among those that are possible at a place: the paper gives no shares.
A chunk of one sentence has no 0, a document of two sentences no 1, a single document no 2; where
nothing is possible there is no pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from configs.schema import config
from preprocessing.draws import uniform
from preprocessing.layouts.base import Cut, Layout, Material, sequence_id
from preprocessing.layouts.pairs import Pair, cut_pairs, random_partner

ADJACENT, APART, ELSEWHERE = 0, 1, 2
_CLASS, _SPLIT, _START = 6, 7, 8  # those below are taken by random partners and by truncation


@config
class SentenceDistanceConfig(Layout):
    """Pairs of segments with their distance."""

    kind: Literal["sentence_distance"]

    def label(self) -> str:
        """0 adjacent, 1 in one document, 2 in two."""
        return "sentence_distance"

    def cut(self, material: Material) -> Cut:
        """Pairs of at most ``length`` tokens, specials included."""
        pairs = [
            pair
            for document in material.documents
            for pair in _pairs_of_document(material, document)
        ]
        return cut_pairs(pairs, material, "distance")


def _pairs_of_document(material: Material, document: int) -> Iterator[Pair]:
    store, most = material.store, material.room(2)
    bounds = [0, *np.cumsum(store.sentence_lengths(document)).tolist()]
    num_sentences = len(bounds) - 1
    # A chunk uses up at least one sentence, so there are at most as many chunks as sentences.
    ids = np.uint64(sequence_id(document, 0)) + np.arange(num_sentences, dtype=np.uint64)
    sequence_id(document, max(0, num_sentences - 1))
    keys = material.keys("distance", ids)
    class_draw, split_draw, start_draw = (
        uniform(keys, 0, draw) for draw in (_CLASS, _SPLIT, _START)
    )
    index = begin = 0
    while begin < num_sentences:
        end = _filled(bounds, begin, num_sentences, most)
        split = begin + 1 + int(split_draw[index] * (end - begin - 1))
        start, stop = bounds[begin], bounds[split]
        before, behind = max(0, begin - 1), max(0, num_sentences - split - 1)
        possible = {
            ADJACENT: split < end,
            APART: before + behind > 0,
            ELSEWHERE: store.num_documents > 1,
        }
        labels = [label for label, there in possible.items() if there]
        if not labels:
            begin = end
            continue
        label = labels[int(class_draw[index] * len(labels))]
        wanted, second = max(1, most - (stop - start)), (document, stop, bounds[end])
        if label == APART:
            first = int(start_draw[index] * (before + behind))
            first, limit = (
                (first, before) if first < before else (split + 1 + first - before, num_sentences)
            )
            second = (document, bounds[first], bounds[_filled(bounds, first, limit, wanted)])
        elif label == ELSEWHERE:
            second = random_partner(store, document, keys[index], wanted)
        yield Pair(int(ids[index]), document, start, stop, *second, label)
        begin = end if label == ADJACENT else split
        index += 1


def _filled(bounds: list[int], begin: int, limit: int, wanted: int) -> int:
    """The end of a run of sentences from ``begin`` on that has ``wanted`` tokens, if there are."""
    end = begin + 1
    while end < limit and bounds[end] - bounds[begin] < wanted:
        end += 1
    return end
