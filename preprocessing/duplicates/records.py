"""Fixed-width records by which duplicates are found: sorted runs, read a range of keys at a time.

A document shard leaves records in runs of at most :data:`RUN` of them, sorted by key; a run is one
record batch. A *partition* is a range of keys: who wants it maps every file and reads that range
of every run, so that no partition is ever larger than its share of the hashes.

    ids/part-00000.arrow         key, rest: the id's two halves; row
    bands/part-00000.arrow       key of a band; row
    signatures/part-00000.arrow  id, signature; in the order of the documents
    drops/part-00000.arrow       shard, row, similarity, kept: the id of the document it repeats
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preprocessing.storage import ShardWriter, open_shard

RUN = 1 << 18
_MOST_PARTITIONS = 4096

ID_RECORDS = pa.schema(
    [
        pa.field("key", pa.uint64(), nullable=False),
        pa.field("rest", pa.uint64(), nullable=False),
        pa.field("row", pa.uint32(), nullable=False),
    ]
)
BAND_RECORDS = pa.schema(
    [
        pa.field("key", pa.uint64(), nullable=False),
        pa.field("row", pa.uint32(), nullable=False),
    ]
)
ID_RECORD_BYTES, BAND_RECORD_BYTES, DROP_BYTES = 20, 12, 32
DROPS = pa.schema(
    [
        pa.field("shard", pa.uint32(), nullable=False),
        pa.field("row", pa.uint32(), nullable=False),
        pa.field("similarity", pa.float64(), nullable=False),
        pa.field("kept", pa.binary(16), nullable=False),
    ]
)
SIGNATURE_ROWS = 4096


def signature_schema(num_hashes: int) -> pa.Schema:
    """Columns of a signature file."""
    return pa.schema(
        [
            pa.field("id", pa.binary(16), nullable=False),
            pa.field("signature", pa.binary(4 * num_hashes), nullable=False),
        ]
    )


def num_partitions(num_records: int) -> int:
    """How many partitions so many records make: about :data:`RUN` each, until there are 4096."""
    return max(1, min(_MOST_PARTITIONS, -(-num_records // RUN)))


def binary_rows(column: pa.FixedSizeBinaryArray, kind: str) -> NDArray[Any]:
    """A column of fixed width as a NumPy view ``[rows, width / size of kind]``."""
    width = column.type.byte_width
    raw = np.frombuffer(column.buffers()[1], np.uint8)
    own = raw[column.offset * width : (column.offset + len(column)) * width]
    return own.view(kind).reshape(len(column), width // np.dtype(kind).itemsize)


def binary_column(rows: NDArray[Any]) -> pa.FixedSizeBinaryArray:
    """The opposite of :func:`binary_rows`: contiguous rows as a column of fixed width."""
    width = rows.dtype.itemsize * rows.shape[1]
    buffer = pa.py_buffer(np.ascontiguousarray(rows))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(rows), [None, buffer])


class RunWriter:
    """Collects records and writes them as sorted runs, each as long as a record batch."""

    def __init__(self, writer: ShardWriter, schema: pa.Schema) -> None:
        self._writer, self._schema = writer, schema
        self._pending: list[list[NDArray[Any]]] = []
        self._count = 0

    def add(self, *columns: NDArray[Any]) -> None:
        """Some records, column by column; rows ascend from call to call."""
        start = 0
        while start < len(columns[0]):
            part = [column[start : start + RUN - self._count] for column in columns]
            self._pending.append(part)
            self._count += len(part[0])
            start += len(part[0])
            if self._count == RUN:
                self.flush()

    def flush(self) -> None:
        """Write what was collected as one run."""
        if self._pending:
            columns = [np.concatenate(parts) for parts in zip(*self._pending, strict=True)]
            order = np.lexsort(columns[::-1])
            arrays = [pa.array(column[order]) for column in columns]
            self._writer.write(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._pending, self._count = [], 0


@dataclass(frozen=True)
class Partition:
    """A range of keys, one of ``of`` equal ones."""

    number: int
    of: int

    @property
    def bounds(self) -> tuple[int, int]:
        """The first key, and the first one behind."""
        return 2**64 * self.number // self.of, 2**64 * (self.number + 1) // self.of


def read_partition(
    paths: Sequence[Path], schema: pa.Schema, starts: NDArray[np.int64], partition: Partition
) -> dict[str, NDArray[np.uint64]]:
    """The records of a partition by column; ``row`` is replaced by ``position``.

    Args:
        paths: the files of all document shards, in order.
        schema: their columns.
        starts: the position of each document shard's first row.
        partition: which keys.
    """
    first, behind = partition.bounds
    nothing = np.zeros(0, np.uint64)
    found = {name: [nothing] for name in schema.names if name != "row"} | {"position": [nothing]}
    for path, start in zip(paths, starts, strict=True):
        reader = open_shard(path)
        for index in range(reader.num_record_batches):
            batch = reader.get_batch(index)
            columns = {name: batch.column(name).to_numpy() for name in schema.names}
            low = int(np.searchsorted(columns["key"], np.uint64(first)))
            high = batch.num_rows
            if behind < 2**64:
                high = int(np.searchsorted(columns["key"], np.uint64(behind)))
            columns["position"] = columns.pop("row")[low:high] + np.uint64(start)
            for name, parts in found.items():
                own = columns[name]
                parts.append(own if name == "position" else np.array(own[low:high]))
    return {name: np.concatenate(parts) for name, parts in found.items()}


class SignatureStore:
    """Random access to the signatures of all documents by position; memory-mapped."""

    def __init__(self, paths: Sequence[Path], starts: NDArray[np.int64], num_hashes: int) -> None:
        self._paths, self._starts, self._num_hashes = paths, starts, num_hashes
        self._reader = lru_cache(maxsize=256)(open_shard)

    def ids(self, positions: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Document ids ``[n, 2]``."""
        return self._gather(positions, "id", "<u8", 2)

    def signatures(self, positions: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """Signatures ``[n, num_hashes]``."""
        return self._gather(positions, "signature", "<u4", self._num_hashes)

    def _gather(
        self, positions: NDArray[np.uint64], column: str, kind: str, width: int
    ) -> NDArray[Any]:
        gathered = np.empty((len(positions), width), kind)
        order = np.argsort(positions, kind="stable")
        ascending = positions[order].astype(np.int64)
        shards = np.searchsorted(self._starts, ascending, side="right") - 1
        batches, rows = np.divmod(ascending - self._starts[shards], SIGNATURE_ROWS)
        for own in _groups(shards, batches):
            reader = self._reader(self._paths[shards[own.start]])
            values = binary_rows(reader.get_batch(int(batches[own.start])).column(column), kind)
            gathered[order[own]] = values[rows[own]]
        return gathered


def _groups(*columns: NDArray[np.int64]) -> Iterator[slice]:
    """Stretches in which every column stays the same."""
    changes = np.zeros(max(0, len(columns[0]) - 1), np.bool_)
    for column in columns:
        changes |= column[1:] != column[:-1]
    edges = [0, *(np.flatnonzero(changes) + 1).tolist(), len(columns[0])]
    for start, stop in itertools.pairwise(edges):
        if stop > start:
            yield slice(start, stop)
