"""Full sentences up to the length of a row, across documents: RoBERTa's FULL-SENTENCES.

From Liu et al. (2019, https://arxiv.org/abs/1907.11692), section 4.2: contiguous sentences, as many
as fit; at a document's end the next document goes on, with one separator more between them.

    sentences of 4, 3 | 2, 5 tokens of two documents; length 12, frame cls_sep
    [CLS] 4 3 [SEP] 2 [SEP]   [CLS] 5 [SEP]

A sentence that is longer than a row is cut into parts that fill one, and a last part that is taken
for a sentence. Rows stay within the documents of their token shard: the last row of a shard may be
short. All of a row is one segment.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from configs.schema import config
from preprocessing.corruption.base import UNLABELLED
from preprocessing.layouts.base import Cut, Layout, Material, Spans, numbered


@config
class FullSentencesConfig(Layout):
    """Contiguous sentences, which may go on in the next document."""

    kind: Literal["full_sentences"]

    def cut(self, material: Material) -> Cut:
        """As many whole sentences as ``length`` tokens hold, specials included."""
        return gather_sentences(material, crossing=True)


def gather_sentences(material: Material, *, crossing: bool) -> Cut:
    """Sequences of contiguous sentences; ``crossing`` lets them go on in the next document."""
    frame = material.frame
    room = material.length - frame.before - frame.behind
    pieces: list[tuple[int, int, int]] = []
    offsets = [0]
    free = 0  # tokens that the sequence at hand has room for; a new one begins where none is open
    for document in material.documents:
        if not crossing:
            free = 0
        begin = 0
        for end in _parts(material.store.sentence_lengths(document), room - frame.after_each):
            size = end - begin
            going_on = free > 0 and pieces[-1][0] == document
            cost = size if going_on else size + frame.after_each
            if cost > free:
                if pieces:
                    offsets.append(len(pieces))
                free, going_on = room, False
                cost = size + frame.after_each
            if going_on:
                pieces[-1] = (document, pieces[-1][1], end)
            else:
                pieces.append((document, begin, end))
            free -= cost
            begin = end
    if pieces:
        offsets.append(len(pieces))
    table = np.array(pieces, dtype=np.int64).reshape(-1, 3)
    bounds = np.array(offsets, dtype=np.int64)
    return Cut(
        ids=numbered(table[bounds[:-1], 0]),
        pieces=Spans(table[:, 0], table[:, 1], table[:, 2]),
        offsets=bounds,
        first_pieces=np.diff(bounds),
        labels=np.full(len(bounds) - 1, UNLABELLED, dtype=np.int64),
        frame=frame,
    )


def _parts(lengths: np.ndarray, most: int) -> Iterator[int]:
    """Where each sentence of a document ends, or each part of one of more than ``most`` tokens."""
    end = 0
    for length in lengths[lengths > 0].tolist():
        begin, end = end, end + length
        yield from range(begin + most, end, most)
        yield end
