"""Sentence pairs for next-sentence prediction, as google-research/bert builds them.

From ``create_pretraining_data.py``: sentences of a document are gathered until the target length
is reached; a split point cuts the chunk into A and what follows it; B is what follows (label 0,
*next*) or, with probability 0.5 and always where the chunk is one sentence, text from a random
start in another document (label 1, *random*), in which case the sentences that were not used are
given back. A pair that is too long loses one token at a time from its longer side (from B where
they are equal), at either end with probability 0.5.

    sentences of 3, 4, 2, 6 tokens; target length 9:   chunk = 3 4 2, split after 1
    label 0:  A = [3]  B = [4 2]                  the next chunk starts at the 6
    label 1:  A = [3]  B = other document         the next chunk starts at the 4
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np
import pydantic
from numpy.typing import NDArray

from configs.schema import config
from preprocessing.draws import bits, integers, uniform
from preprocessing.layouts.base import Cut, Frame, Layout, Material, Spans, sequence_id
from preprocessing.tokens import TokenStore

Probability = Annotated[float, pydantic.Field(ge=0.0, le=1.0)]

NEXT, RANDOM = 0, 1
_SHORT, _TARGET = 0, 1  # a document's draws
_SPLIT, _IS_RANDOM, _PARTNER, _PARTNER_START = 0, 1, 2, 3  # a sequence's draws
_FRONT_A, _FRONT_B = 4, 5


@config
class PairsConfig(Layout):
    """Pairs of segments with the next-sentence label."""

    kind: Literal["pairs"]
    short_probability: Probability = 0.1
    random_probability: Probability = 0.5

    def label(self) -> str:
        """0 where the second segment follows the first, 1 where it comes from elsewhere."""
        return "next_sentence"

    def cut(self, material: Material) -> Cut:
        """Pairs of at most ``length`` tokens, specials included."""
        pairs = [
            pair
            for document in material.documents
            for pair in _pairs_of_document(self, material, document)
        ]
        return cut_pairs(pairs, material, "pairs")


class Pair(NamedTuple):
    """One pair before truncation: spans in tokens of their documents."""

    id: int
    document: int
    start: int
    stop: int
    second_document: int
    second_start: int
    second_stop: int
    label: int


def cut_pairs(pairs: Sequence[Pair], material: Material, purpose: str) -> Cut:
    """Pairs as sequences that fit a row, truncated by draws for a purpose where too long."""
    table = np.array(pairs, dtype=np.int64).reshape(-1, len(Pair._fields))
    ids = table[:, 0].astype(np.uint64)
    first = Spans(table[:, 1], table[:, 2], table[:, 3])
    second = Spans(table[:, 4], table[:, 5], table[:, 6])
    first, second = truncate(first, second, material.room(2), material.keys(purpose, ids))
    return pair_cut(ids, first, second, table[:, 7], material.frame)


def pair_cut(
    ids: NDArray[np.uint64],
    first: Spans,
    second: Spans,
    labels: NDArray[np.int64],
    frame: Frame,
) -> Cut:
    """Sequences of two pieces each."""
    return Cut(
        ids=ids,
        pieces=Spans(
            *(
                np.stack([getattr(first, name), getattr(second, name)], axis=1).reshape(-1)
                for name in ("documents", "starts", "stops")
            )
        ),
        offsets=2 * np.arange(len(ids) + 1),
        first_pieces=np.ones(len(ids), dtype=np.int64),
        labels=labels,
        frame=frame,
    )


def target_length(material: Material, document: int, short_probability: float, purpose: str) -> int:
    """Up to how many tokens sentences of a document are gathered: as many as fit, or few."""
    most = material.room(2)
    key = material.keys(f"{purpose} of document", np.array([document]))
    if uniform(key, 0, _SHORT)[0] < short_probability and most > 2:
        return 2 + int(integers(key, 0, _TARGET, most - 1)[0])
    return most


def _pairs_of_document(config: PairsConfig, material: Material, document: int) -> Iterator[Pair]:
    store = material.store
    lengths = store.sentence_lengths(document).tolist()
    num_sentences = len(lengths)
    # A chunk uses up at least one sentence, so there are at most as many chunks as sentences.
    ids = np.uint64(sequence_id(document, 0)) + np.arange(num_sentences, dtype=np.uint64)
    sequence_id(document, max(0, num_sentences - 1))
    keys = material.keys("pairs", ids)
    split_draw, random_draw = uniform(keys, 0, _SPLIT), uniform(keys, 0, _IS_RANDOM)
    target = target_length(material, document, config.short_probability, "pairs")

    bounds = [0]
    for sentence_length in lengths:
        bounds.append(bounds[-1] + sentence_length)
    index = begin = 0
    while begin < num_sentences:
        end = begin + 1
        while end < num_sentences and bounds[end] - bounds[begin] < target:
            end += 1
        size = end - begin
        split = begin + 1 + (int(split_draw[index] * (size - 1)) if size >= 2 else 0)
        start, stop = bounds[begin], bounds[split]
        if size == 1 or random_draw[index] < config.random_probability:
            partner = random_partner(store, document, keys[index], target - (stop - start))
            yield Pair(int(ids[index]), document, start, stop, *partner, RANDOM)
            begin = split
        else:
            yield Pair(int(ids[index]), document, start, stop, document, stop, bounds[end], NEXT)
            begin = end
        index += 1


def random_partner(
    store: TokenStore, document: int, key: np.uint64, wanted: int
) -> tuple[int, int, int]:
    """A span of another document: from a random sentence on, until ``wanted`` tokens are there.

    Where there is only one document it is its own partner, as in the reference.
    """
    one = np.array([key], dtype=np.uint64)
    others = max(1, store.num_documents - 1)
    partner = int(integers(one, 0, _PARTNER, others)[0])
    if store.num_documents > 1 and partner >= document:
        partner += 1
    lengths = store.sentence_lengths(partner)
    first = int(integers(one, 0, _PARTNER_START, len(lengths))[0])
    sums = np.cumsum(lengths, dtype=np.int64)
    start = int(sums[first] - lengths[first])
    last = int(np.searchsorted(sums, start + max(1, wanted)))
    return partner, start, int(sums[min(last, len(sums) - 1)])


def truncate(
    first: Spans, second: Spans, most: int, keys: NDArray[np.uint64]
) -> tuple[Spans, Spans]:
    """Take single tokens off the longer side until both together have at most ``most``.

    >>> # 7 and 4 tokens, most 8: three go, all from the 7; 5 and 5: A loses one, B loses one
    """
    from_first, from_second = excess(first.lengths, second.lengths, most)
    return (
        _shorten(first, from_first, keys, _FRONT_A),
        _shorten(second, from_second, keys, _FRONT_B),
    )


def excess(
    first_lengths: NDArray[np.int64], second_lengths: NDArray[np.int64], most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many tokens each side loses ``[pairs]`` until both together have at most ``most``."""
    surplus = np.maximum(0, first_lengths + second_lengths - most)
    lead = first_lengths - second_lengths
    uneven = np.minimum(np.abs(lead), surplus)
    even = surplus - uneven  # from here on both are equally long, and B goes first
    from_first = np.where(lead > 0, uneven, 0) + even // 2
    return from_first, np.where(lead < 0, uneven, 0) + (even + 1) // 2


def _shorten(
    spans: Spans, removed: NDArray[np.int64], keys: NDArray[np.uint64], draw: int
) -> Spans:
    """Take ``removed`` tokens off each span, each from the front or the back by a coin."""
    owner = np.repeat(np.arange(len(removed)), removed)
    turn = np.arange(len(owner)) - np.repeat(np.cumsum(removed) - removed, removed)
    heads = bits(keys[owner], turn, draw) >> np.uint64(63)
    front = np.bincount(owner, weights=heads, minlength=len(removed)).astype(np.int64)
    return Spans(spans.documents, spans.starts + front, spans.stops - (removed - front))
