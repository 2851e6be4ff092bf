"""Parquet and Arrow: tables whose columns are looked at as columns.

Neither format keeps its promise that strings are UTF-8, nor need what is read be what was written;
so columns are taken as bytes and checked before anything touches them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from preprocessing.reading.base import BUFFER_BYTES, DamagedError, Found, Reject
from preprocessing.reading.fields import JOINER, label
from preprocessing.reading.settings import ReadingConfig
from preprocessing.storage import InputError

BATCH_ROWS = 256
_ARROW_MAGIC = b"ARROW1"
# A damaged schema may have names that are no UTF-8.
_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError)


def parquet_rows(file: IO[bytes], reading: ReadingConfig, name: str) -> Iterator[Found | Reject]:
    """The rows of a Parquet file; offsets count them.

    Raises:
        InputError: there is no such column, or it holds no text.
        DamagedError: with the row that could not be read.
    """
    row = 0
    try:
        table = pa.parquet.ParquetFile(
            file, pre_buffer=False, buffer_size=BUFFER_BYTES, page_checksum_verification=True
        )
        columns = [_path(table.schema_arrow, column, name) for column in _wanted(reading)]
        _check_texts(table.schema_arrow, columns[: len(reading.text_fields)], name)
        wanted = [".".join(path) for path in columns]
        # One group at a time: pyarrow would read the next one ahead, and trip over its damage.
        for batch in itertools.chain.from_iterable(
            table.iter_batches(BATCH_ROWS, [group], wanted, use_threads=False)
            for group in range(table.num_row_groups)
        ):
            yield from _rows(batch, columns, reading, row)
            row += batch.num_rows
    except _ERRORS as error:
        raise _damage(error, row) from error


def arrow_rows(file: IO[bytes], reading: ReadingConfig, name: str) -> Iterator[Found | Reject]:
    """The rows of an Arrow IPC file or stream; offsets count them.

    A file is a stream between two magic words; read as one, it gives what came before damage, even
    without its footer.

    Raises:
        InputError: there is no such column, or it holds no text.
        DamagedError: with the row that could not be read.
    """
    row = 0
    is_file = file.read(len(_ARROW_MAGIC)) == _ARROW_MAGIC
    file.seek(8 if is_file else 0)
    try:
        reader = pa.ipc.open_stream(pa.PythonFile(_Bounded(file), mode="r"))
        columns = [_path(reader.schema, column, name) for column in _wanted(reading)]
        _check_texts(reader.schema, columns[: len(reading.text_fields)], name)
        for batch in reader:
            for begin in range(0, batch.num_rows, BATCH_ROWS):
                part = batch.slice(begin, BATCH_ROWS)
                yield from _rows(part, columns, reading, row)
                row += part.num_rows
    except _ERRORS as error:
        raise _damage(error, row) from error
    if is_file:
        file.seek(max(8, file.seek(0, 2) - len(_ARROW_MAGIC)))
        if file.read() != _ARROW_MAGIC:
            raise DamagedError(row, "the file ends too early", complete=True)


class _Bounded:
    """A file that is never asked for more than it has: damaged lengths would cost all memory."""

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        here = file.tell()
        self._size = file.seek(0, 2)
        file.seek(here)

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._file.tell())
        return self._file.read(left if size < 0 else min(size, left))

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def close(self) -> None:
        self.closed = True


def _damage(error: Exception, row: int) -> Exception:
    if isinstance(error, OSError) and error.errno is not None:
        return error  # the disk's or the network's fault, not the file's
    return DamagedError(row, str(error)[:500])


def _wanted(reading: ReadingConfig) -> list[str]:
    labels = [reading.language_field, reading.licence_field]
    return [*reading.text_fields, *(name for name in labels if name is not None)]


def _path(schema: pa.Schema, column: str, name: str) -> list[str]:
    """A column by its name, or ``a.b`` the field ``b`` of the column ``a``."""
    if schema.names.count(column) == 1:
        return [column]
    first, *rest = column.split(".")
    if rest and schema.names.count(first) == 1:
        kind = schema.field(first).type
        for part in rest:
            if not pa.types.is_struct(kind) or kind.get_field_index(part) < 0:
                break
            kind = kind.field(part).type
        else:
            return [first, *rest]
    names = ", ".join(schema.names[:20])
    number = "more than one column" if column in schema.names else "no column"
    raise InputError(f"{name}: {number} '{column}'; there are: {names}. Set text_field")


def _check_texts(schema: pa.Schema, paths: Sequence[Sequence[str]], name: str) -> None:
    for path in paths:
        kind = schema.field(path[0]).type
        for part in path[1:]:
            kind = kind.field(part).type
        value = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not _is_text(value) and not pa.types.is_null(value):
            column = ".".join(path)
            raise InputError(f"{name}: column '{column}' holds {kind}, not text; set text_field")


def _is_text(kind: Any) -> bool:
    types = pa.types
    return any(
        check(kind)
        for check in (
            types.is_string,
            types.is_large_string,
            types.is_string_view,
            types.is_binary,
            types.is_large_binary,
            types.is_binary_view,
        )
    )


def _rows(
    batch: pa.RecordBatch, columns: Sequence[Sequence[str]], reading: ReadingConfig, row: int
) -> Iterator[Found | Reject]:
    count = len(reading.text_fields)
    texts = [_bytes(_column(batch, path)) for path in columns[:count]]
    names = iter(columns[count:])
    languages = _labels(batch, next(names)) if reading.language_field is not None else None
    licences = _labels(batch, next(names)) if reading.licence_field is not None else None
    joined = texts[0] if count == 1 else _joined(texts)
    offsets = np.arange(row, row + len(joined))
    if joined.null_count:
        there = pc.is_valid(joined).to_numpy(zero_copy_only=False)
        for place in np.flatnonzero(~there).tolist():
            yield Reject("missing_text", row + place, f"'{reading.text_fields[0]}' is null")
        joined, offsets = joined.filter(pa.array(there)), offsets[there]
        languages = languages and list(itertools.compress(languages, there.tolist()))
        licences = licences and list(itertools.compress(licences, there.tolist()))
    yield Found(joined, offsets, languages, licences)


def _column(batch: pa.RecordBatch, path: Sequence[str]) -> pa.Array:
    column = batch.column(batch.schema.get_field_index(path[0]))
    return pc.struct_field(column, list(path[1:])) if len(path) > 1 else column


def _bytes(column: pa.Array) -> pa.LargeBinaryArray:
    if isinstance(column, pa.DictionaryArray):
        column.validate(full=False)
        column = column.cast(column.type.value_type)
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.binary_view())
    data = column.cast(pa.large_binary())
    data.validate(full=True)
    return data


def _joined(texts: Sequence[pa.LargeBinaryArray]) -> pa.LargeBinaryArray:
    rows = zip(*(column.to_pylist() for column in texts), strict=True)
    parts = [[part for part in row if part is not None] for row in rows]
    values = [JOINER.encode().join(row) if row else None for row in parts]
    return pa.array(values, pa.large_binary())


def _labels(batch: pa.RecordBatch, path: Sequence[str]) -> list[str | None]:
    column = _column(batch, path)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if _is_text(kind):
        values = _bytes(column).to_pylist()
        return [None if v is None else label(v.decode(errors="replace")) for v in values]
    return [label(value) for value in column.to_pylist()]
