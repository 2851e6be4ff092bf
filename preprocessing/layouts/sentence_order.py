"""Pairs of consecutive segments in right or wrong order, for ALBERT's sentence-order prediction.

From Lan et al. (2020, https://arxiv.org/abs/1909.11942) and google-research/albert,
``create_pretraining_data.py``. Sentences are gathered as for BERT's pairs; a split point cuts the
chunk in two segments, which change places with probability 0.5. The label is 1 where they did. A
pair that is too long loses tokens as BERT's does.

    sentences of 3, 4, 2, 6, 5 tokens; target length 9:   chunks = 3 4 2, 6 5; splits after 1, 1
    label 0:  A = [3]    B = [4 2]       A = [6]  B = [5]
    label 1:  A = [4 2]  B = [3]         A = [5]  B = [6]        (two tokens are lost here)

A deviation: the reference gives a chunk of one sentence a segment of another document, with label
1, although nothing was swapped; here such a chunk is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
import pydantic

from configs.schema import config
from preprocessing.draws import integers, uniform
from preprocessing.layouts.base import Cut, Layout, Material, Spans, sequence_id
from preprocessing.layouts.pairs import pair_cut, target_length, truncate

Probability = Annotated[float, pydantic.Field(ge=0.0, le=1.0)]

IN_ORDER, SWAPPED = 0, 1
_SPLIT, _IS_SWAPPED = 0, 1  # a sequence's draws; those of truncation follow


@config
class SentenceOrderConfig(Layout):
    """Two consecutive segments and the label of their order."""

    kind: Literal["sentence_order"]
    short_probability: Probability = 0.1
    swap_probability: Probability = 0.5

    def label(self) -> str:
        """0 where the segments stand in the order of the text, 1 where they are swapped."""
        return "sentence_order"

    def cut(self, material: Material) -> Cut:
        """Pairs of at most ``length`` tokens, specials included."""
        rows = []
        for document in material.documents:
            target = target_length(material, document, self.short_probability, "sentence_order")
            for index, bounds in enumerate(
                _chunks(material.store.sentence_lengths(document), target)
            ):
                rows.append((sequence_id(document, index), document, bounds))
        ids = np.array([one for one, *_ in rows], dtype=np.uint64)
        keys = material.keys("sentence_order", ids)
        sizes = np.array([len(bounds) - 1 for *_, bounds in rows], dtype=np.int64)
        splits = 1 + integers(keys, 0, _SPLIT, sizes - 1)
        swapped = uniform(keys, 0, _IS_SWAPPED) < self.swap_probability
        table = np.array(
            [
                (document, bounds[0], bounds[split], bounds[-1])
                for (_, document, bounds), split in zip(rows, splits.tolist(), strict=True)
            ],
            dtype=np.int64,
        ).reshape(-1, 4)
        owners, begins, middles, ends = table.T
        first = Spans(owners, np.where(swapped, middles, begins), np.where(swapped, ends, middles))
        second = Spans(owners, np.where(swapped, begins, middles), np.where(swapped, middles, ends))
        first, second = truncate(first, second, material.room(2), keys)
        labels = np.where(swapped, SWAPPED, IN_ORDER)
        return pair_cut(ids, first, second, labels, material.frame)


def _chunks(lengths: np.ndarray, target: int) -> Iterator[list[int]]:
    """Where the sentences of each chunk begin, and the last one ends; at least two sentences."""
    bounds = [0]
    for place, length in enumerate(lengths.tolist(), 1):
        bounds.append(bounds[-1] + length)
        if bounds[-1] - bounds[0] >= target or place == len(lengths):
            if len(bounds) > 2:
                yield bounds
            bounds = bounds[-1:]
