"""From the documents of a token store to rows: cut, put together, copied, corrupted where static.

documents --layout--> sequences (pieces of documents) --packing--> which sequences share a row
          --copying--> their tokens, special ones around them --corruption--> static rows
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preprocessing.corruption import (
    Bounds,
    Context,
    Corrupted,
    Sequences,
    SpecialIds,
)
from preprocessing.corruption.base import ABSENT
from preprocessing.corruption.fitting import longest_fitting
from preprocessing.layouts.base import FRAMES, PAIR, Cut, Material
from preprocessing.marking import Marker
from preprocessing.packing import pack_rows
from preprocessing.rows import Rows, record_batch
from preprocessing.settings import ExamplesConfig
from preprocessing.storage import InputError
from preprocessing.tables.base import Arrays
from preprocessing.tokenizers.specials import Role
from preprocessing.tokens import TokenStore
from preprocessing.vocabulary import Vocabulary


class RowMaker:
    """Makes rows of an examples set, all of one length, from the documents of one split.

    Args:
        length: which of the set's ``row_lengths``; None takes the longest.

    Attributes:
        schema: of the record batches.
        facts: what the rows made so far come to: static shapes.
    """

    def __init__(
        self,
        config: ExamplesConfig,
        vocabulary: Vocabulary,
        store: TokenStore,
        seed: int,
        tables: Arrays = MappingProxyType({}),
        *,
        length: int | None = None,
    ) -> None:
        self._config, self._store, self._seed = config, store, seed
        self._length = config.length if length is None else length
        self._layout = config.layout.bind(vocabulary)
        self._id_type = vocabulary.id_type
        self._context = Context(special_ids(vocabulary), tables)
        self._raw_length = raw_length(config, self._context)
        config.corruption.check(self._context, self._raw_length)
        frame = FRAMES[config.frame]
        self._context.special.require(
            f"examples of the frame '{config.frame}'",
            "pad",
            *(["start"] if frame.before or frame.behind else []),
            *(["separator"] if frame.after_each else []),
        )
        nothing = self.cut(range(0), 0)
        no_rows = self._rows(nothing, [])
        corrupted = self._corrupt(no_rows, 0)
        static = corrupted if config.mode == "static" else None
        self.schema = self._record_batch(no_rows, static).schema
        self.facts: dict[str, Any] = {
            "max_targets": dict.fromkeys(self._bounds(nothing).targets, 0),
            "max_sequences": 0,
            "decoder_targets": [
                name for name, targets in corrupted.targets.items() if targets.of_decoder
            ],
        }

    def cut(self, documents: range, copy: int) -> Cut:
        """The sequences of some documents."""
        frame = FRAMES[self._config.frame]
        return self._layout.cut(
            Material(self._store, documents, self._raw_length, frame, self._seed, copy)
        )

    def members(self, cut: Cut) -> list[list[int]]:
        """Which sequences stand in which row."""
        limits, config = self._bounds(cut), self._config
        if config.pack:
            decoder = None
            if limits.decoder is not None:
                decoder = limits.decoder, _decoder_length(config)
            return pack_rows(limits.inputs, config.length, decoder=decoder)
        own = np.full(len(limits.inputs), config.length)
        for length in reversed(config.buckets):
            fits = limits.inputs <= length
            if limits.decoder is not None:
                fits &= limits.decoder <= _decoder_length(config) * length // config.length
            own[fits] = length
        return [[index] for index in np.flatnonzero(own == self._length).tolist()]

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
        return rows, self._record_batch(rows, static)

    def _bounds(self, cut: Cut) -> Bounds:
        return self._config.corruption.bounds(self._context, cut.lengths)

    def _rows(self, cut: Cut, members: Sequence[Sequence[int]]) -> Rows:
        wanted = self._config.corruption.marks()
        return gather_rows(self._store, cut, members, self._context.special, wanted)

    def _record_batch(self, rows: Rows, static: Corrupted | None) -> pa.RecordBatch:
        config = self._config
        return record_batch(
            rows,
            self._id_type,
            static,
            marks=config.corruption.marks() != 0,
            backward=config.layout.reads_backward(),
            segments=config.layout.num_segments() > PAIR,
        )

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
        end=known("end"),
        sentinels=vocabulary.sentinel_ids,
    )


def raw_length(config: ExamplesConfig, context: Context) -> int:
    """The longest sequence whose inputs, and decoder's inputs, fit a row.

    >>> # T5's spans of a mean of 3 tokens: 568 tokens become 512, and 114 for the decoder
    """
    scheme = config.corruption
    has_decoder = scheme.bounds(context, np.array([1])).decoder is not None
    decoder_length = _decoder_length(config) if has_decoder else None
    if not has_decoder and config.decoder_length is not None:
        raise InputError(
            f"examples: corruption '{scheme.kind}' feeds no decoder; leave decoder_length out"
        )
    longest = longest_fitting(scheme, context, config.length, decoder_length)
    if not longest:
        raise InputError(f"examples: not even a single token fits a row of {config.length}")
    return longest


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
    marker = Marker(store, wanted_marks)
    frame, pieces, separators = cut.frame, cut.pieces, cut.separators
    document_end = special.separator if special.end == ABSENT else special.end
    backward = np.zeros(len(cut.ids), dtype=np.bool_) if cut.backward is None else cut.backward
    for index, place in zip(order.tolist(), offsets.tolist(), strict=False):
        if frame.before:
            tokens[place] = special.start
            place += 1
        own_pieces = range(int(cut.offsets[index]), int(cut.offsets[index + 1]))
        own_marks = iter(marker.of(pieces, own_pieces) if wanted_marks else ())
        for piece in own_pieces:
            document = int(pieces.documents[piece])
            own = slice(int(pieces.starts[piece]), int(pieces.stops[piece]))
            inside = store.ids(document)[own]
            end = place + own.stop - own.start
            step = -1 if backward[index] else 1
            there = tokens[place:end][::step]
            there[: len(inside)] = inside
            there[len(inside) :] = document_end
            if wanted_marks:
                marks[place:end][::step][: len(inside)] = next(own_marks)
            place = end
            if separators[piece]:
                tokens[place] = special.separator
                place += 1
        if frame.behind:
            tokens[place] = special.start
    sequences = Sequences(
        tokens=tokens,
        offsets=offsets,
        ids=cut.ids[order],
        first_lengths=cut.first_lengths[order],
        labels=cut.labels[order],
        marks=marks,
        backward=backward[order],
        segments=_segments(cut, order),
    )
    sizes = np.array([len(row) for row in members], dtype=np.int64)
    return Rows(sequences, np.repeat(np.arange(len(members)), sizes), len(members))


def _segments(cut: Cut, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Segment ids ``[tokens]`` of the chosen sequences; special tokens have those of their piece.

    None at all where they follow from the first segment's length.
    """
    if cut.segments is None:
        return np.zeros(0, dtype=np.int64)
    sizes = cut.pieces.lengths + cut.separators
    sizes[cut.offsets[:-1]] += cut.frame.before
    sizes[cut.offsets[1:] - 1] += cut.frame.behind
    own = [np.arange(cut.offsets[index], cut.offsets[index + 1]) for index in order.tolist()]
    pieces = np.concatenate([np.zeros(0, dtype=np.int64), *own])
    return np.repeat(cut.segments[pieces], sizes[pieces])
