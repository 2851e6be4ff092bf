"""Rows of fixed length: how they are stored, found and turned into arrays for a model.

A row holds one or several whole sequences, chosen once. Shards have a fixed number of rows a
record batch, so that a row is found by arithmetic.

    ids             [CLS] a b [SEP]  [CLS] c [SEP]  [PAD]
    sequences       [70, 93]        global ids of the sequences
    lengths         [4, 3]          of the sequences
    first_lengths   [4, 3]          up to and including the first [SEP]
    labels          [-1, -1]        of the pairs: 0 next, 1 random, -1 none
    target_places, target_ids       in static examples: what was corrupted
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preprocessing.corruption import Corrupted, CorruptionConfig, Sequences, SpecialIds, corrupt
from preprocessing.draws import UInt64
from preprocessing.storage import InputError, Manifest, open_shard

ROWS_PER_BATCH = 1024
IGNORED = -100
"""The label of a padded target."""


def row_schema(length: int, id_type: type, *, static: bool) -> pa.Schema:
    """Columns of an examples shard."""
    ids = pa.from_numpy_dtype(np.dtype(id_type))

    def listed(name: str, kind: pa.DataType) -> pa.Field:
        item = pa.field("item", kind, nullable=False)
        return pa.field(name, pa.list_(item), nullable=False)

    fields = [
        pa.field("ids", pa.list_(pa.field("item", ids, nullable=False), length), nullable=False),
        listed("sequences", pa.uint64()),
        listed("lengths", pa.int32()),
        listed("first_lengths", pa.int32()),
        listed("labels", pa.int8()),
    ]
    if static:
        fields += [listed("target_places", pa.int32()), listed("target_ids", ids)]
    return pa.schema(fields)


def copy_split(split: str, copy: int) -> str:
    """Where the shards of one copy of a split stand."""
    return f"{split}/copy-{copy:03d}"


@dataclass(frozen=True)
class Rows:
    """Some rows as arrays.

    Attributes:
        tokens: ids ``[rows, length]``.
        row_of: the row of each sequence ``[sequences]``, ascending.
        ids, lengths, first_lengths, labels: of the sequences ``[sequences]``.
    """

    tokens: NDArray[np.int64]
    row_of: NDArray[np.int64]
    ids: UInt64
    lengths: NDArray[np.int64]
    first_lengths: NDArray[np.int64]
    labels: NDArray[np.int64]

    @property
    def rank(self) -> NDArray[np.int64]:
        """Which sequence of its row each is, from 0."""
        first = np.searchsorted(self.row_of, self.row_of)
        return np.arange(len(self.row_of)) - first

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each sequence starts in the flattened tokens."""
        before = np.cumsum(self.lengths) - self.lengths
        first = np.searchsorted(self.row_of, self.row_of)
        within = before - before[first] if len(before) else before
        return np.asarray(self.row_of * self.tokens.shape[1] + within, dtype=np.int64)

    def sequences(self) -> Sequences:
        """The form that corruptions take."""
        return Sequences(self.tokens.reshape(-1), self.starts, self.lengths, self.ids)


@dataclass(frozen=True)
class Arrays:
    """A micro-batch before it becomes tensors; shapes as in ``pipeline.batch.Batch``."""

    ids: NDArray[np.int64]
    sequence_ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    segment_ids: NDArray[np.int64]
    targets: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]


@dataclass(frozen=True)
class Shape:
    """What is static about the rows of an examples set."""

    length: int
    max_targets: int
    max_sequences: int
    paired: bool


def arrange(rows: Rows, corrupted: Corrupted, shape: Shape) -> Arrays:
    """Lay out a micro-batch: who belongs to which sequence, where, and what is to be predicted."""
    num_rows, length = rows.tokens.shape
    sequence_ids, positions, segment_ids = np.zeros((3, num_rows * length), dtype=np.int64)
    owner = np.repeat(np.arange(len(rows.lengths)), rows.lengths)
    before = np.cumsum(rows.lengths) - rows.lengths
    position = np.arange(len(owner)) - before[owner]
    place = rows.starts[owner] + position
    sequence_ids[place] = rows.rank[owner] + 1
    positions[place] = position
    segment_ids[place] = position >= rows.first_lengths[owner]
    targets = {
        "masked_lm": _padded(
            corrupted.target_places, corrupted.target_ids, num_rows * shape.max_targets
        )
    }
    if shape.paired:
        targets["next_sentence"] = _padded(rows.starts, rows.labels, num_rows * shape.max_sequences)
    return Arrays(
        corrupted.tokens.reshape(num_rows, length),
        sequence_ids.reshape(num_rows, length),
        positions.reshape(num_rows, length),
        segment_ids.reshape(num_rows, length),
        targets,
    )


def _padded(
    places: NDArray[np.int64], labels: NDArray[Any], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    indices, padded = np.zeros(count, dtype=np.int64), np.full(count, IGNORED, dtype=np.int64)
    indices[: len(places)] = places
    padded[: len(places)] = labels
    return indices, padded


def join(parts: Sequence[Arrays]) -> Arrays:
    """Micro-batches below each other."""
    if len(parts) == 1:
        return parts[0]
    offsets = np.cumsum([0, *(part.ids.size for part in parts)])
    targets = {
        name: (
            np.concatenate([p.targets[name][0] + o for p, o in zip(parts, offsets, strict=False)]),
            np.concatenate([p.targets[name][1] for p in parts]),
        )
        for name in parts[0].targets
    }
    return Arrays(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.sequence_ids for part in parts]),
        np.concatenate([part.positions for part in parts]),
        np.concatenate([part.segment_ids for part in parts]),
        targets,
    )


class RowSet:
    """The rows of one split of an examples directory, in all their copies."""

    def __init__(self, directory: Path, split: str, *, seed: int) -> None:
        self.manifest = Manifest.read(directory)
        self.split = split
        facts = self.manifest.facts
        if split not in facts["splits"]:
            have = ", ".join(facts["splits"])
            raise InputError(f"{directory}: there is no split '{split}' here, only {have}")
        self.shape = Shape(
            facts["length"], facts["max_targets"], facts["max_sequences"], facts["paired"]
        )
        self.special = SpecialIds(**facts["special"])
        self.static = bool(facts["static"])
        self._seed = seed
        self._copies = []
        for copy in range(facts["splits"][split]):
            shards = self.manifest.of(copy_split(split, copy))
            readers = [open_shard(directory / shard.name) for shard in shards]
            starts = np.cumsum([0, *(shard.rows for shard in shards)])
            self._copies.append((readers, starts))
        self._batch = lru_cache(maxsize=4096)(self._read_batch)

    @property
    def num_rows(self) -> list[int]:
        """Rows of each copy."""
        return [int(starts[-1]) for _, starts in self._copies]

    def arrays(
        self, corruption: CorruptionConfig, rows: NDArray[np.int64], *, epoch: int
    ) -> Arrays:
        """The micro-batch of some rows ``[rows]`` in an epoch."""
        copy = epoch % len(self._copies)
        read = self.read(copy, rows)
        if self.static:
            corrupted = self._stored_corruption(copy, rows, read)
        else:
            corrupted = corrupt(
                corruption, self.special, read.sequences(), seed=self._seed, epoch=epoch
            )
        return arrange(read, corrupted, self.shape)

    def read(self, copy: int, rows: NDArray[np.int64]) -> Rows:
        """Rows of one copy, as stored."""
        tokens = np.empty((len(rows), self.shape.length), dtype=np.int64)
        parts: dict[str, list[NDArray[Any]]] = {
            name: [] for name in ("sequences", "lengths", "first_lengths", "labels")
        }
        for out, row in enumerate(rows.tolist()):
            columns, index = self._locate(copy, row)
            tokens[out] = columns["ids"][0][index]
            for name, listed in parts.items():
                values, offsets = columns[name]
                listed.append(values[offsets[index] : offsets[index + 1]])
        counts = [len(part) for part in parts["lengths"]]
        flat = {name: np.concatenate(listed) for name, listed in parts.items()}
        return Rows(
            tokens=tokens,
            row_of=np.repeat(np.arange(len(rows)), counts),
            ids=flat["sequences"].astype(np.uint64),
            lengths=flat["lengths"].astype(np.int64),
            first_lengths=flat["first_lengths"].astype(np.int64),
            labels=flat["labels"].astype(np.int64),
        )

    def _stored_corruption(self, copy: int, rows: NDArray[np.int64], read: Rows) -> Corrupted:
        places, ids = [], []
        for out, row in enumerate(rows.tolist()):
            columns, index = self._locate(copy, row)
            values, offsets = columns["target_places"]
            part = slice(offsets[index], offsets[index + 1])
            places.append(values[part].astype(np.int64) + out * self.shape.length)
            ids.append(columns["target_ids"][0][part].astype(np.int64))
        return Corrupted(read.tokens.reshape(-1), np.concatenate(places), np.concatenate(ids))

    def _locate(
        self, copy: int, row: int
    ) -> tuple[dict[str, tuple[NDArray[Any], NDArray[Any]]], int]:
        starts = self._copies[copy][1]
        shard = int(np.searchsorted(starts, row, side="right")) - 1
        batch, index = divmod(row - int(starts[shard]), ROWS_PER_BATCH)
        return self._batch(copy, shard, batch), index

    def _read_batch(
        self, copy: int, shard: int, index: int
    ) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        batch = self._copies[copy][0][shard].get_batch(index)
        views = {}
        for name in batch.schema.names:
            column = batch.column(name)
            values = column.values.to_numpy(zero_copy_only=True)
            if name == "ids":
                views[name] = (values.reshape(-1, self.shape.length), np.zeros(0, np.int64))
            else:
                views[name] = (values, np.asarray(column.offsets))
        return views


def record_batch(schema: pa.Schema, rows: Rows, corrupted: Corrupted | None) -> pa.RecordBatch:
    """Rows as an Arrow record batch; ``corrupted`` makes it a static one."""
    num_rows, length = rows.tokens.shape
    tokens = rows.tokens.reshape(-1) if corrupted is None else corrupted.tokens
    sequence_offsets = np.searchsorted(rows.row_of, np.arange(num_rows + 1)).astype(np.int32)

    def listed(name: str, offsets: NDArray[np.int32], values: NDArray[Any]) -> pa.Array:
        kind = schema.field(name).type
        return pa.ListArray.from_arrays(
            pa.array(offsets), pa.array(values, type=kind.value_type), type=kind
        )

    ids_type = schema.field("ids").type
    columns: Sequence[pa.Array] = [
        pa.FixedSizeListArray.from_arrays(
            pa.array(tokens, type=ids_type.value_type), type=ids_type
        ),
        listed("sequences", sequence_offsets, rows.ids),
        listed("lengths", sequence_offsets, rows.lengths),
        listed("first_lengths", sequence_offsets, rows.first_lengths),
        listed("labels", sequence_offsets, rows.labels),
    ]
    if corrupted is not None:
        target_rows, places = np.divmod(corrupted.target_places, length)
        offsets = np.searchsorted(target_rows, np.arange(num_rows + 1)).astype(np.int32)
        columns = [
            *columns,
            listed("target_places", offsets, places),
            listed("target_ids", offsets, corrupted.target_ids),
        ]
    return pa.RecordBatch.from_arrays(list(columns), schema=schema)
