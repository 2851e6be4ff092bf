"""List columns of Arrow shards by row number, gathered by compiled code from the mapped files.

Every record batch but a shard's last holds the same number of rows, so that a row is found by
arithmetic. A shard is opened when a row of it is first asked for, and what is remembered of it are
the addresses of its buffers: opening costs the same for any number of rows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pyarrow as pa
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from preprocessing.compiled import compiled
from preprocessing.places import RemotePath
from preprocessing.storage import InputError, Shard, open_shard

MAX_OPEN = 256
"""Shards that are kept open; an open file counts against the process's limit."""

_INT64 = numba.types.Array(numba.int64, 1, "C", readonly=True)


class ColumnStore:
    """The rows of some shards, numbered from 0 in the shards' order.

    Args:
        rows_per_batch: of every record batch but a shard's last.

    Raises:
        InputError: a shard is missing, or not of the size that the manifest says.
    """

    def __init__(
        self, directory: Path, shards: Sequence[Shard], rows_per_batch: int, *, check: bool = True
    ) -> None:
        self._paths = [directory / shard.name for shard in shards]
        if check:
            for path, shard in zip(self._paths, shards, strict=True):
                _check_size(path, shard)
        rows = np.array([shard.rows for shard in shards], dtype=np.int64)
        self._rows_per_batch = rows_per_batch
        self._starts = np.concatenate([[0], np.cumsum(rows)])
        self._batches = np.concatenate([[0], np.cumsum(-(-rows // rows_per_batch))])
        self._columns: dict[str, _Column] = {}
        self._open: OrderedDict[int, pa.ipc.RecordBatchFileReader] = OrderedDict()
        self._known = np.zeros(int(self._batches[-1]), dtype=np.bool_)
        self._held: dict[int, pa.RecordBatch] = {}

    @property
    def num_rows(self) -> int:
        """Rows of all shards."""
        return int(self._starts[-1])

    @property
    def schema(self) -> pa.Schema:
        """Of the shards; empty where there are none."""
        return self._reader(0).schema if self._paths else pa.schema([])

    def locate(self, rows: NDArray[np.int64]) -> Located:
        """Find rows ``[rows]``, and have what lies there at hand."""
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        batches, within = np.divmod(rows - self._starts[shards], self._rows_per_batch)
        batches += self._batches[shards]
        unknown = ~self._known[batches]
        if unknown.any():
            needed = np.unique(shards)
            for shard in needed.tolist():  # first of all, so that none is closed for another
                self._reader(shard, room=max(MAX_OPEN, len(needed)))
            for batch in np.unique(batches[unknown]).tolist():
                self._learn(batch)
        return Located(batches, within)

    def gather(
        self, name: str, located: Located, counts: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The values of a column at some rows, one behind the other, and where each row's begin.

        Args:
            counts: so many of each row's values, where not all are wanted.

        Returns:
            int64 values (float32 where the column has them) and offsets ``[rows + 1]``.
        """
        column = self._columns[name]
        if counts is None:
            counts = _count(column.offsets, located.batches, located.within, column.width)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        values = np.empty(int(offsets[-1]), dtype=np.int64)
        _gather(
            column.values,
            column.offsets,
            located.batches,
            located.within,
            column.width,
            column.code,
            offsets,
            values,
        )
        if column.floating:
            return values.astype(np.uint32).view(np.float32), offsets
        return values, offsets

    def _reader(self, shard: int, room: int = MAX_OPEN) -> pa.ipc.RecordBatchFileReader:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        while len(self._open) >= room:
            closed, _ = self._open.popitem(last=False)
            own = range(int(self._batches[closed]), int(self._batches[closed + 1]))
            self._known[own.start : own.stop] = False
            for batch in own:
                self._held.pop(batch, None)
        reader = open_shard(self._paths[shard])
        for index, field in enumerate(reader.schema):
            if field.name not in self._columns and _is_list(field.type):
                self._columns[field.name] = _Column.of(field.type, index, len(self._known))
        self._open[shard] = reader
        return reader

    def _learn(self, batch: int) -> None:
        """Remember where the buffers of a record batch lie."""
        shard = int(np.searchsorted(self._batches, batch, side="right")) - 1
        read = self._reader(shard).get_batch(batch - int(self._batches[shard]))
        for column in self._columns.values():
            listed = read.column(column.index)
            column.values[batch] = listed.values.buffers()[1].address
            if not column.width:
                column.offsets[batch] = listed.buffers()[1].address
        if isinstance(self._paths[shard], RemotePath):
            self._held[batch] = read
        self._known[batch] = True  # what is mapped stays where it is while the reader is open


@dataclass(frozen=True)
class Located:
    """Where rows lie: their record batches, and their places in them, ``[rows]`` each."""

    batches: NDArray[np.int64]
    within: NDArray[np.int64]


@dataclass(frozen=True)
class _Column:
    """Where a column's buffers lie, by record batch; 0 where that is not known."""

    index: int
    code: int
    floating: bool
    width: int  # of lists that are all alike; 0 where they are not
    values: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @staticmethod
    def of(kind: pa.DataType, index: int, num_batches: int) -> _Column:
        item = np.dtype(kind.value_type.to_pandas_dtype())
        width = kind.list_size if pa.types.is_fixed_size_list(kind) else 0
        floating = item == np.float32
        code = item.itemsize * (-1 if item.kind == "i" else 1)
        # Untouched pages of these take no memory.
        values, offsets = np.zeros((2, num_batches), dtype=np.int64)
        return _Column(index, code, floating, width, values, offsets)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind))


def _check_size(path: Path, shard: Shard) -> None:
    try:
        size = path.stat().st_size
    except OSError:
        size = None
    if size != shard.size:
        open_shard(path)  # which says what is wrong with it, where that can be seen
        raise InputError(
            f"{path}: {size} bytes, where the manifest says {shard.size}; "
            "delete it and run the stage again"
        )


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(context: Any, address: Any) -> Any:
    """An address as a pointer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.voidptr(types.int64), generate


@compiled(_INT64(_INT64, _INT64, _INT64, numba.int64))
def _count(
    offset_addresses: NDArray[np.int64],
    batches: NDArray[np.int64],
    within: NDArray[np.int64],
    width: int,
) -> NDArray[np.int64]:
    """Values of each row ``[rows]``."""
    counts = np.empty(len(batches), np.int64)
    for row in range(len(batches)):
        if width:
            counts[row] = width
        else:
            place = within[row]
            own = numba.carray(_pointer(offset_addresses[batches[row]]), (place + 2,), np.int32)
            counts[row] = own[place + 1] - own[place]
    return counts


@compiled(
    numba.void(_INT64, _INT64, _INT64, _INT64, numba.int64, numba.int64, _INT64, numba.int64[::1])
)
def _gather(
    value_addresses: NDArray[np.int64],
    offset_addresses: NDArray[np.int64],
    batches: NDArray[np.int64],
    within: NDArray[np.int64],
    width: int,
    code: int,
    offsets: NDArray[np.int64],
    out: NDArray[np.int64],
) -> None:
    """Copy values row by row; ``code`` is their size in bytes, negative where they have signs."""
    for row in range(len(batches)):
        batch, place = batches[row], within[row]
        if width:
            start = place * width
        else:
            start = numba.carray(_pointer(offset_addresses[batch]), (place + 1,), np.int32)[place]
        count, first = offsets[row + 1] - offsets[row], offsets[row]
        address = value_addresses[batch] + start * abs(code)
        if code == 2:
            short = numba.carray(_pointer(address), (count,), np.uint16)
            for index in range(count):
                out[first + index] = short[index]
        elif code == 4:
            word = numba.carray(_pointer(address), (count,), np.uint32)
            for index in range(count):
                out[first + index] = word[index]
        elif code == -4:
            signed = numba.carray(_pointer(address), (count,), np.int32)
            for index in range(count):
                out[first + index] = signed[index]
        elif code == 1:
            byte = numba.carray(_pointer(address), (count,), np.uint8)
            for index in range(count):
                out[first + index] = byte[index]
        elif code == -1:
            small = numba.carray(_pointer(address), (count,), np.int8)
            for index in range(count):
                out[first + index] = small[index]
        else:
            long = numba.carray(_pointer(address), (count,), np.int64)
            for index in range(count):
                out[first + index] = long[index]
