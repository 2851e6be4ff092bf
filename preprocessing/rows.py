"""Rows: how they are stored, found and turned into arrays for a model.

A row holds one or several whole sequences, chosen once. Shards have a fixed number of rows a
record batch, so that a row is found by arithmetic. Dynamic rows hold sequences as they are, static
ones as a corruption left them:

    ids             [CLS] a b [SEP]  [CLS] c [SEP]      without padding
    sequences       [70, 93]        global ids of the sequences
    lengths         [4, 3]          of the sequences
    first_lengths   [4, 3]          up to the end of the first segment
    labels          [-1, -1]        of the sequences, -1 where they have none
    marks           what is known of each token, where the corruption asks for it
    backward        1 for sequences that hold their text backward, where the layout makes such ones
    segments        a segment id a token, where the layout gives others than 0 and 1

    static rows also hold
    channels/<name>                 a number a token
    targets/<name>/places, labels, extra/<column>
    decoder/ids, decoder/lengths    the decoder's inputs
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preprocessing.arrangement import Arrays, Shape, arrange
from preprocessing.block_cache import BlockCache
from preprocessing.columns import ColumnStore, Located
from preprocessing.corruption import (
    Context,
    Corrupted,
    CorruptionConfig,
    Sequences,
    Side,
    SpecialIds,
    Targets,
)
from preprocessing.storage import InputError, Manifest
from preprocessing.tables.files import read_array

ROWS_PER_BATCH = 1024
TABLES = "tables"
"""Where the tables that a corruption looks up stand beside the rows of ``<split>/copy-000``."""
_CHANNEL, _TARGETS, _DECODER = "channels/", "targets/", "decoder/"
_NO_MARKS = np.zeros(0, dtype=np.uint8)
_NO_BACKWARD = np.zeros(0, dtype=np.bool_)
_NO_SEGMENTS = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Rows:
    """Some rows: their sequences, and the row of each ``[sequences]``, ascending."""

    sequences: Sequences
    row_of: NDArray[np.int64]
    num_rows: int


def copy_split(split: str, copy: int, bucket: int | None = None) -> str:
    """Where the shards of one copy of a split stand; those of shorter rows by their length."""
    return f"{split}/copy-{copy:03d}" + ("" if bucket is None else f"/length-{bucket:05d}")


def split_of(folder: str) -> tuple[str, int, int | None]:
    """Split, copy and bucket of shards that stand where :func:`copy_split` says."""
    split, copy, *bucket = folder.split("/")
    numbers = [int(name.rpartition("-")[2]) for name in (copy, *bucket)]
    return split, numbers[0], numbers[1] if bucket else None


def record_batch(
    rows: Rows,
    id_type: type,
    corrupted: Corrupted | None = None,
    *,
    marks: bool = False,
    backward: bool = False,
    segments: bool = False,
) -> pa.RecordBatch:
    """Rows as an Arrow record batch; ``corrupted`` makes it a static one.

    Args:
        marks, backward: whether dynamic rows hold these, for the corruption to come.
        segments: whether rows hold segment ids.
    """
    sequences = rows.sequences if corrupted is None else corrupted.inputs
    listed = _Lists(rows.row_of, rows.num_rows)
    listed.add_tokens("ids", sequences.tokens, sequences.offsets, id_type)
    listed.add("sequences", sequences.ids, np.uint64)
    listed.add("lengths", sequences.lengths, np.int32)
    listed.add("first_lengths", sequences.first_lengths, np.int32)
    listed.add("labels", sequences.labels, np.int8)
    if segments:
        listed.add_tokens("segments", sequences.segments, sequences.offsets, np.uint8)
    if corrupted is not None:
        _add_corruption(listed, corrupted, id_type)
        return listed.batch()
    if marks:
        listed.add_tokens("marks", sequences.marks, sequences.offsets, np.uint8)
    if backward:
        listed.add("backward", sequences.backward, np.uint8)
    return listed.batch()


def _add_corruption(listed: _Lists, corrupted: Corrupted, id_type: type) -> None:
    offsets = corrupted.inputs.offsets
    for name, values in corrupted.channels.items():
        listed.add_tokens(_CHANNEL + name, values, offsets, np.int32)
    side = corrupted.decoder
    if side is not None:
        listed.add_tokens(f"{_DECODER}ids", side.tokens, side.offsets, id_type)
        listed.add(f"{_DECODER}lengths", np.diff(side.offsets), np.int32)
    for name, targets in corrupted.targets.items():
        of = f"{_TARGETS}{name}/"
        own = offsets if not targets.of_decoder or side is None else side.offsets
        listed.add_places(f"{of}places", targets.places, own, targets.places)
        listed.add_by_place(f"{of}labels", targets.labels, own, targets.places, np.int32)
        for key, values in targets.extra.items():
            if key.endswith("_place"):
                listed.add_places(f"{of}extra/{key}", values, own, targets.places)
            else:
                kind = np.float32 if values.dtype == np.float32 else np.int32
                listed.add_by_place(f"{of}extra/{key}", values, own, targets.places, kind)


class _Lists:
    """Columns of lists, a list a row."""

    def __init__(self, row_of: NDArray[np.int64], num_rows: int) -> None:
        self._row_of = row_of
        self._sequences = np.searchsorted(row_of, np.arange(num_rows + 1))
        self._columns: dict[str, pa.Array] = {}

    def add(self, name: str, values: NDArray[Any], kind: type) -> None:
        """A value a sequence."""
        self._add(name, values, self._sequences, kind)

    def add_tokens(
        self, name: str, values: NDArray[Any], offsets: NDArray[np.int64], kind: type
    ) -> None:
        """A value a token."""
        self._add(name, values, offsets[self._sequences], kind)

    def add_by_place(
        self,
        name: str,
        values: NDArray[Any],
        offsets: NDArray[np.int64],
        places: NDArray[np.int64],
        kind: type,
    ) -> None:
        """A value a target; those of a row stand together."""
        rows = self._row_of[np.searchsorted(offsets, places, side="right") - 1]
        assert (np.diff(rows) >= 0).all(), name
        self._add(name, values, np.searchsorted(rows, np.arange(len(self._sequences))), kind)

    def add_places(
        self,
        name: str,
        values: NDArray[np.int64],
        offsets: NDArray[np.int64],
        places: NDArray[np.int64],
    ) -> None:
        """Places of a target, counted from the beginning of their row."""
        rows = self._row_of[np.searchsorted(offsets, places, side="right") - 1]
        own = values - offsets[self._sequences][rows]
        self.add_by_place(name, own, offsets, places, np.int32)

    def batch(self) -> pa.RecordBatch:
        """All columns."""
        fields = [
            pa.field(name, column.type, nullable=False) for name, column in self._columns.items()
        ]
        return pa.RecordBatch.from_arrays(list(self._columns.values()), schema=pa.schema(fields))

    def _add(self, name: str, values: NDArray[Any], offsets: NDArray[Any], kind: type) -> None:
        item = pa.field("item", pa.from_numpy_dtype(np.dtype(kind)), nullable=False)
        self._columns[name] = pa.ListArray.from_arrays(
            pa.array(offsets.astype(np.int32)),
            pa.array(values.astype(kind)),
            type=pa.list_(item),
        )


class RowSet:
    """The rows of one split of an examples directory, in all their copies.

    Args:
        bucket: the length of shorter rows, where the set has any; None takes the longest ones.
    """

    def __init__(
        self,
        directory: Path,
        split: str,
        *,
        seed: int,
        cache: BlockCache | None = None,
        bucket: int | None = None,
    ) -> None:
        self.manifest = Manifest.read(directory)
        self.split = split
        facts = _current(self.manifest.facts)
        if split not in facts["splits"]:
            have = ", ".join(facts["splits"])
            raise InputError(f"{directory}: there is no split '{split}' here, only {have}")
        if bucket is not None:
            facts |= _bucket(directory, facts, bucket)
        special = {**facts["special"], "sentinels": tuple(facts["special"].get("sentinels", ()))}
        self.special = SpecialIds(**special)
        self.shape = Shape(
            length=facts["length"],
            max_targets=facts["max_targets"],
            max_sequences=facts["max_sequences"],
            label=facts["label"],
            decoder_length=facts["decoder_length"],
            pad=self.special.pad,
        )
        self.static = bool(facts["static"])
        self.rows_per_batch = int(facts["rows_per_batch"])
        tables = {name: read_array(directory / file) for name, file in facts["tables"].items()}
        self.context = Context(self.special, tables)
        self._directory = directory
        self._seed = seed
        self._copies = [
            ColumnStore(
                directory,
                self.manifest.of(copy_split(split, copy, bucket)),
                facts["rows_per_batch"],
                cache,
            )
            for copy in range(facts["splits"][split])
        ]

    @property
    def num_rows(self) -> list[int]:
        """Rows of each copy."""
        return [store.num_rows for store in self._copies]

    def arrays(
        self,
        corruption: CorruptionConfig,
        rows: NDArray[np.int64],
        *,
        epoch: int,
        shape: Shape | None = None,
    ) -> Arrays:
        """The micro-batch of some rows ``[rows]`` in an epoch; ``shape`` if not their own."""
        copy = epoch % len(self._copies)
        found = self._copies[copy].locate(rows)
        read = self._read(copy, found)
        if self.static:
            corrupted = self._stored_corruption(copy, found, read)
        else:
            if corruption.marks() and len(read.sequences.tokens) > len(read.sequences.marks):
                raise InputError(
                    f"{self._directory}: these rows do not hold what corruption "
                    f"'{corruption.kind}' must know of tokens; run the examples stage again"
                )
            corrupted = corruption.corrupt(
                self.context, read.sequences, seed=self._seed, epoch=epoch
            )
        return arrange(corrupted, read.row_of, read.num_rows, shape or self.shape)

    def read(self, copy: int, rows: NDArray[np.int64]) -> Rows:
        """Rows of one copy, as stored."""
        return self._read(copy, self._copies[copy].locate(np.asarray(rows, dtype=np.int64)))

    def _read(self, copy: int, found: Located) -> Rows:
        store = self._copies[copy]
        names = store.schema.names
        lengths, of_rows = store.gather("lengths", found)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        tokens, _ = store.gather("ids", found, np.diff(offsets[of_rows]))
        marks = _NO_MARKS
        if "marks" in names:
            marks = store.gather("marks", found)[0].astype(np.uint8)
        backward = _NO_BACKWARD
        if "backward" in names:
            backward = store.gather("backward", found)[0].astype(np.bool_)
        segments = _NO_SEGMENTS
        if "segments" in names:
            segments = store.gather("segments", found)[0]
        sequences = Sequences(
            tokens=tokens,
            offsets=offsets,
            ids=store.gather("sequences", found)[0].astype(np.uint64),
            first_lengths=store.gather("first_lengths", found)[0],
            labels=store.gather("labels", found)[0],
            marks=marks,
            backward=backward,
            segments=segments,
        )
        num_rows = len(found.batches)
        return Rows(sequences, np.repeat(np.arange(num_rows), np.diff(of_rows)), num_rows)

    def _stored_corruption(self, copy: int, found: Located, read: Rows) -> Corrupted:
        store = self._copies[copy]
        columns = [name for name in store.schema.names if "/" in name]
        side = None
        of_rows = np.searchsorted(read.row_of, np.arange(read.num_rows + 1))
        starts = read.sequences.offsets[of_rows]
        decoder_starts = starts
        if f"{_DECODER}ids" in columns:
            lengths, _ = store.gather(f"{_DECODER}lengths", found)
            offsets = np.concatenate([[0], np.cumsum(lengths)])
            side = Side(store.gather(f"{_DECODER}ids", found)[0], offsets)
            decoder_starts = offsets[of_rows]
        targets: dict[str, dict[str, Any]] = {}
        for column in columns:
            if not column.startswith(_TARGETS):
                continue
            _, name, what, *rest = column.split("/")
            values, own = store.gather(column, found)
            of_decoder = name in self.manifest.facts["decoder_targets"]
            if column.endswith(("/places", "_place")):
                begin = decoder_starts if of_decoder else starts
                values = values + np.repeat(begin[:-1], np.diff(own))
            told = targets.setdefault(name, {"extra": {}, "of_decoder": of_decoder})
            if rest:
                told["extra"][rest[0]] = values
            else:
                told[what] = values
        return Corrupted(
            inputs=read.sequences,
            targets={name: Targets(**told) for name, told in targets.items()},
            channels={
                column.removeprefix(_CHANNEL): store.gather(column, found)[0]
                for column in columns
                if column.startswith(_CHANNEL)
            },
            decoder=side,
        )


def _bucket(directory: Path, facts: Mapping[str, Any], bucket: int) -> Mapping[str, Any]:
    """What is different in shorter rows."""
    buckets: Mapping[str, Mapping[str, Any]] = facts.get("buckets", {})
    if str(bucket) not in buckets:
        have = ", ".join([*buckets, str(facts["length"])])
        raise InputError(f"{directory}: there are no rows of {bucket} tokens here, only {have}")
    return buckets[str(bucket)]


def _current(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a manifest in today's form: those of dynamic rows of version 0.1 differ."""
    if "rows_per_batch" in facts:
        return dict(facts)
    if facts["static"]:
        raise InputError("static examples of an older version; run the examples stage again")
    return {
        **facts,
        "rows_per_batch": ROWS_PER_BATCH,
        "max_targets": {"masked_lm": facts["max_targets"]},
        "label": "next_sentence" if facts["paired"] else None,
        "decoder_length": None,
        "tables": {},
    }
