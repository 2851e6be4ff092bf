"""From the documents of a token store to rows: cut, put together, copied, corrupted where static.

documents --layout--> sequences (pieces of documents) --packing--> which sequences share a row
          --copying--> their tokens, special ones around them --corruption--> static rows
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from preprocessing.corruption import (
    Bounds,
    Context,
    Corrupted,
    Sequences,
    SpecialIds,
)
from preprocessing.corruption.base import ABSENT
from preprocessing.layouts.base import FRAMES, Cut
from preprocessing.marks import document_marks
from preprocessing.packing import pack_rows
from preprocessing.rows import Rows, record_batch
from preprocessing.settings import ExamplesConfig
from preprocessing.storage import InputError
from preprocessing.tokenizers.specials import Role
from preprocessing.tokens import TokenStore
from preprocessing.vocabulary import Vocabulary


class RowMaker:
    """Makes rows of an examples set from the documents of one split.

    Attributes:
        schema: of the record batches.
        facts: what the rows made so far come to: static shapes.
    """

    def __init__(
        self, config: ExamplesConfig, vocabulary: Vocabulary, store: TokenStore, seed: int
    ) -> None:
        self._config, self._store, self._seed = config, store, seed
        self._id_type = vocabulary.id_type
        self._context = Context(special_ids(vocabulary))
        nothing = self.cut(range(0), 0)
        no_rows = self._rows(nothing, [])
        corrupted = self._corrupt(no_rows, 0)
        static = corrupted if config.mode == "static" else None
        self.schema = record_batch(no_rows, self._id_type, static).schema
        self.facts: dict[str, Any] = {
            "max_targets": dict.fromkeys(self._bounds(nothing).targets, 0),
            "max_sequences": 0,
            "decoder_targets": [
                name for name, targets in corrupted.targets.items() if targets.of_decoder
            ],
        }

    def cut(self, documents: range, copy: int) -> Cut:
        """The sequences of some documents."""
        config = self._config
        return config.layout.cut(
            self._store,
            documents,
            raw_length(config, self._context),
            FRAMES[config.frame],
            seed=self._seed,
            copy=copy,
        )

    def members(self, cut: Cut) -> list[list[int]]:
        """Which sequences stand in which row."""
        limits = self._bounds(cut)
        if self._config.pack:
            return pack_rows(limits.inputs, self._config.length)
        return [[index] for index in range(len(limits.inputs))]

    def make(
        self, cut: Cut, members: Sequence[Sequence[int]], copy: int
    ) -> tuple[Rows, pa.RecordBatch]:
        """Rows of the given sequences, and their record batch."""
        rows = self._rows(cut, members)
        limits = self._config.corruption.bounds(self._context, rows.sequences.lengths)
        most = self.facts["max_targets"]
        for objective, own in limits.targets.items():
            most[objective] = max(most[objective], int(np.bincount(rows.row_of, own).max()))
        sequences = int(np.bincount(rows.row_of).max())
        self.facts["max_sequences"] = max(self.facts["max_sequences"], sequences)
        static = self._corrupt(rows, copy) if self._config.mode == "static" else None
        return rows, record_batch(rows, self._id_type, static)

    def _bounds(self, cut: Cut) -> Bounds:
        return self._config.corruption.bounds(self._context, cut.lengths)

    def _rows(self, cut: Cut, members: Sequence[Sequence[int]]) -> Rows:
        wanted = self._config.corruption.marks()
        return gather_rows(self._store, cut, members, self._context.special, wanted)

    def _corrupt(self, rows: Rows, copy: int) -> Corrupted:
        return self._config.corruption.corrupt(
            self._context, rows.sequences, seed=self._seed, epoch=copy
        )


def special_ids(vocabulary: Vocabulary) -> SpecialIds:
    """What corruptions must know of a vocabulary."""

    def known(role: Role) -> int:
        found = vocabulary.id_of(role)
        return ABSENT if found is None else found

    return SpecialIds(
        size=vocabulary.size,
        pad=known("pad"),
        start=known("start"),
        separator=known("separator"),
        mask=known("mask"),
    )


def raw_length(config: ExamplesConfig, context: Context) -> int:
    """The longest sequence whose inputs, and decoder's inputs, fit a row.

    >>> # T5's spans of a mean of 3 tokens: 568 tokens become 512, and 114 for the decoder
    """
    lengths = np.arange(1, 4 * config.length + 1)
    limits = config.corruption.bounds(context, lengths)
    fits = limits.inputs <= config.length
    if limits.decoder is not None:
        fits &= limits.decoder <= _decoder_length(config)
    if not fits.any():
        raise InputError(f"examples: not even a single token fits a row of {config.length}")
    return int(lengths[fits][-1])


def _decoder_length(config: ExamplesConfig) -> int:
    if config.decoder_length is None:
        raise InputError(
            f"examples: corruption '{config.corruption.kind}' feeds a decoder; give decoder_length"
        )
    return config.decoder_length


def gather_rows(
    store: TokenStore,
    cut: Cut,
    members: Sequence[Sequence[int]],
    special: SpecialIds,
    wanted_marks: int,
) -> Rows:
    """Copy the tokens of the chosen sequences, with the special ones around them."""
    order = np.array([index for row in members for index in row], dtype=np.int64)
    lengths = cut.lengths[order]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.empty(int(offsets[-1]), dtype=np.int64)
    marks = np.zeros(len(tokens) if wanted_marks else 0, dtype=np.uint8)
    frame, pieces = cut.frame, cut.pieces
    for index, place in zip(order.tolist(), offsets.tolist(), strict=False):
        if frame.before:
            tokens[place] = special.start
            place += 1
        for piece in range(int(cut.offsets[index]), int(cut.offsets[index + 1])):
            document = int(pieces.documents[piece])
            own = slice(int(pieces.starts[piece]), int(pieces.stops[piece]))
            end = place + own.stop - own.start
            tokens[place:end] = store.ids(document)[own]
            if wanted_marks:
                marks[place:end] = document_marks(store, document, wanted_marks)[own]
            place = end
            if frame.after_each:
                tokens[place] = special.separator
                place += 1
        if frame.behind:
            tokens[place] = special.start
    sequences = Sequences(
        tokens, offsets, cut.ids[order], cut.first_lengths[order], cut.labels[order], marks
    )
    sizes = np.array([len(row) for row in members], dtype=np.int64)
    return Rows(sequences, np.repeat(np.arange(len(members)), sizes), len(members))
