"""List columns of Arrow shards by row number, gathered by compiled code from the mapped files.

Every record batch but a shard's last holds the same number of rows, so that a row is found by
arithmetic. A shard is opened when a row of it is first asked for, and what is remembered of the
open ones are the addresses of their buffers: time and memory are the same for any number of rows.
"""

from __future__ import annotations

import os
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

from preprocessing.block_cache import BlockCache
from preprocessing.compiled import compiled
from preprocessing.places import RemotePath
from preprocessing.storage import InputError, Shard, open_shard

MAX_OPEN = 256
"""Shards that are kept open; an open file counts against the process's limit."""

MAX_HELD = 256
"""Record batches of far-away shards that are kept in memory."""
_CLOSED = -1

_INT64 = numba.types.Array(numba.int64, 1, "C", readonly=True)


class ColumnStore:
    """The rows of some shards, numbered from 0 in the shards' order.

    Args:
        rows_per_batch: of every record batch but a shard's last.
        cache: where blocks of far-away shards are kept; without one they are read every time.

    Attributes:
        schema: of the shards; empty where there are none.

    Raises:
        InputError: a shard is missing.
    """

    def __init__(
        self,
        directory: Path,
        shards: Sequence[Shard],
        rows_per_batch: int,
        cache: BlockCache | None = None,
    ) -> None:
        _check_presence(directory, shards)
        self._directory, self._shards, self._cache = directory, shards, cache
        rows = np.array([shard.rows for shard in shards], dtype=np.int64)
        self._rows_per_batch = rows_per_batch
        self._starts = np.concatenate([[0], np.cumsum(rows)])
        # An open shard has a slot, and a record batch in it a number: those of the buffers' places.
        self._slots = np.full(len(shards), _CLOSED, dtype=np.int64)
        self._batches_a_slot = int(-(-rows.max(initial=0) // rows_per_batch))
        self._known = np.zeros(0, dtype=np.bool_)
        self._columns: dict[str, _Column] = {}
        self._open: OrderedDict[int, pa.ipc.RecordBatchFileReader] = OrderedDict()
        self._free: list[int] = []
        # Record batches that are not mapped, by number, the one used longest ago first.
        self._held: OrderedDict[int, pa.RecordBatch] = OrderedDict()
        self.schema = self._reader(0).schema if shards else pa.schema([])

    @property
    def num_rows(self) -> int:
        """Rows of all shards."""
        return int(self._starts[-1])

    def locate(self, rows: NDArray[np.int64]) -> Located:
        """Find rows ``[rows]``, and have what lies there at hand until the next call."""
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        batches, within = np.divmod(rows - self._starts[shards], self._rows_per_batch)
        slots = self._slots[shards]
        if (slots == _CLOSED).any():
            needed = np.unique(shards)
            for shard in needed.tolist():  # all of them first: opening one may close another
                self._reader(shard, room=len(needed))
            slots = self._slots[shards]
        numbers = slots * self._batches_a_slot + batches
        if self._held:
            self._release(set(numbers.tolist()))
        unknown = np.flatnonzero(~self._known[numbers])
        for place in unknown.tolist():
            if not self._known[numbers[place]]:
                self._learn(int(shards[place]), int(batches[place]), int(numbers[place]))
        return Located(numbers, within)

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

    def _reader(self, shard: int, room: int = 0) -> pa.ipc.RecordBatchFileReader:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        while len(self._open) >= max(MAX_OPEN, room):
            closed, _ = self._open.popitem(last=False)
            self._free.append(int(self._slots[closed]))
            self._slots[closed] = _CLOSED
            first = self._free[-1] * self._batches_a_slot
            for number in range(first, first + self._batches_a_slot) if self._held else ():
                self._held.pop(number, None)
        reader = self._open_shard(self._shards[shard])
        if not self._columns:
            self._columns = {
                field.name: _Column.of(field.type, index)
                for index, field in enumerate(reader.schema)
                if _is_list(field.type)
            }
        slot = self._free.pop() if self._free else len(self._open)
        self._make_room(slot + 1)
        self._known[slot * self._batches_a_slot : (slot + 1) * self._batches_a_slot] = False
        self._slots[shard] = slot
        self._open[shard] = reader
        return reader

    def _open_shard(self, shard: Shard) -> pa.ipc.RecordBatchFileReader:
        path = self._directory / shard.name
        if not isinstance(path, RemotePath):
            return open_whole(path, shard.size)
        if self._cache is None:
            return open_shard(path)
        return pa.ipc.open_file(pa.PythonFile(self._cache.open(path, shard), mode="r"))

    def _make_room(self, slots: int) -> None:
        """Have places for the buffers of so many open shards."""
        wanted = slots * self._batches_a_slot
        if wanted > len(self._known):
            grown = max(wanted, 2 * len(self._known))
            self._known = np.resize(self._known, grown)
            for column in self._columns.values():
                column.values = np.resize(column.values, grown)
                column.offsets = np.resize(column.offsets, grown)

    def _learn(self, shard: int, batch: int, number: int) -> None:
        """Remember where the buffers of a record batch lie."""
        read = self._open[shard].get_batch(batch)
        for column in self._columns.values():
            listed = read.column(column.index)
            column.values[number] = listed.values.buffers()[1].address
            if not column.width:
                column.offsets[number] = listed.buffers()[1].address
        if isinstance(self._directory, RemotePath):
            self._held[number] = read
        self._known[number] = True  # what is mapped stays where it is while the reader is open

    def _release(self, needed: set[int]) -> None:
        """Let go of record batches used longest ago, down to :data:`MAX_HELD` and the needed."""
        for number in needed & self._held.keys():
            self._held.move_to_end(number)
        while len(self._held) > MAX_HELD and next(iter(self._held)) not in needed:
            number, _ = self._held.popitem(last=False)
            self._known[number] = False


@dataclass(frozen=True)
class Located:
    """Where rows lie: the numbers of their record batches, and their places in them ``[rows]``."""

    batches: NDArray[np.int64]
    within: NDArray[np.int64]


@dataclass
class _Column:
    """Where a column's buffers lie, by the number of the record batch."""

    index: int
    code: int
    floating: bool
    width: int  # of lists that are all alike; 0 where they are not
    values: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @staticmethod
    def of(kind: pa.DataType, index: int) -> _Column:
        item = np.dtype(kind.value_type.to_pandas_dtype())
        width = kind.list_size if pa.types.is_fixed_size_list(kind) else 0
        code = item.itemsize * (-1 if item.kind == "i" else 1)
        nothing = np.zeros(0, dtype=np.int64)
        return _Column(index, code, item == np.float32, width, nothing, nothing)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind))


def _check_presence(directory: Path, shards: Sequence[Shard]) -> None:
    """Look that the shards are there; one listing a folder, however many there are."""
    if isinstance(directory, RemotePath):
        return  # a manifest is written last, and a listing far away costs more than it tells
    folders: dict[str, list[str]] = {}
    for shard in shards:
        folder, _, name = shard.name.rpartition("/")
        folders.setdefault(folder, []).append(name)
    for folder, names in folders.items():
        there = set(os.listdir(directory / folder)) if (directory / folder).is_dir() else set()
        for name in names:
            if name not in there:
                open_shard(directory / folder / name)  # which says that it is missing


def open_whole(path: Path, size: int) -> pa.ipc.RecordBatchFileReader:
    """Open a shard of a known size.

    Raises:
        InputError: it is missing, damaged, or of another size.
    """
    reader = open_shard(path)
    if not isinstance(path, RemotePath) and path.stat().st_size != size:
        raise InputError(
            f"{path}: not of the {size} bytes that the manifest says; "
            "delete it and run the stage again"
        )
    return reader


@intrinsic  # type: ignore[untyped-decorator]  # Numba's has no types
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
