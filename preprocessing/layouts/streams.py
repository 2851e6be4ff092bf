"""Streams: documents laid end to end and cut into full windows, for models with memory.

From Transformer-XL (Dai et al. 2019, https://arxiv.org/abs/1901.02860; its ``LMOrderedIterator``)
and ELMo (allenai/bilm-tf, ``lm_dataset``). Row r + 1 goes on where row r ends, so that what a model
remembers of one is of use to the other; a separator stands behind every document (frame ``sep``),
or behind every sentence.

    documents a b c d and e f g h i, frame sep, length 4:    a b c d   [SEP] e f g   h i [SEP] ...

ELMo's sentences are framed by two tokens of which the inputs hold the first and the targets the
second: one token between sentences does for both.

Windows begin anew with every token shard: less than a window is left out at its end, and counted.
Nothing else depends on how documents are dealt to shards.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from configs.schema import config
from preprocessing.corruption.base import UNLABELLED
from preprocessing.layouts.base import Cut, Layout, Material, Spans, numbered
from preprocessing.storage import InputError
from preprocessing.tokens import TokenStore


@config
class StreamsConfig(Layout):
    """Full windows that follow each other.

    Attributes:
        unit: what a separator stands behind, if the frame has one.
    """

    kind: Literal["streams"]
    unit: Literal["document", "sentence"] = "document"

    def consecutive(self) -> bool:
        """Each window goes on where the one before it ends."""
        return True

    def cut(self, material: Material) -> Cut:
        """Windows of exactly ``length`` tokens.

        Raises:
            InputError: the frame has more than a separator.
        """
        if material.frame.before or material.frame.behind:
            raise InputError("layout 'streams': windows have no frame; use frame 'sep' or 'none'")
        units = _units(material.store, material.documents, self.unit)
        begins = np.concatenate([[0], np.cumsum(units.lengths + material.frame.after_each)])
        windows, left_out = divmod(int(begins[-1]), material.length)
        bounds = material.length * np.arange(windows + 1)
        cuts = np.unique(np.concatenate([begins[begins < bounds[-1]], bounds]))
        unit = np.searchsorted(begins, cuts[:-1], side="right") - 1
        within = cuts[:-1] - begins[unit]
        stops = np.minimum(within + np.diff(cuts), units.lengths[unit])
        pieces = Spans(
            units.documents[unit],
            units.starts[unit] + np.minimum(within, stops),
            units.starts[unit] + stops,
        )
        offsets = np.searchsorted(cuts, bounds)
        return Cut(
            ids=numbered(pieces.documents[offsets[:-1]]),
            pieces=pieces,
            offsets=offsets,
            first_pieces=np.diff(offsets),
            labels=np.full(windows, UNLABELLED, dtype=np.int64),
            frame=material.frame,
            closed=cuts[1:] == begins[unit + 1],
            left_out=left_out,
        )


def _units(store: TokenStore, documents: range, unit: str) -> Spans:
    """What is laid end to end."""
    if unit == "document":
        counts = np.array([len(store.ids(document)) for document in documents], dtype=np.int64)
        return Spans(np.array(documents, dtype=np.int64), np.zeros_like(counts), counts)
    lengths = [store.sentence_lengths(document).astype(np.int64) for document in documents]
    owners = np.repeat(documents, [len(own) for own in lengths]).astype(np.int64)
    stops = np.concatenate([np.zeros(0, dtype=np.int64), *map(np.cumsum, lengths)])
    return Spans(owners, stops - np.concatenate([np.zeros(0, dtype=np.int64), *lengths]), stops)
