"""What an awkward file is, and how the bytes of some forms are made."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

Expected = list[tuple[int, str]]


@dataclass(frozen=True)
class Awkward:
    """A file, how it is read, and what comes of it."""

    id: str
    data: bytes
    expected: Expected
    reading: Mapping[str, Any] = field(default_factory=dict)
    name: str = "a.txt"


def zst_bytes(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def parquet_bytes(column: Any, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": column}), sink, **options)
    return sink.getvalue()


def arrow_bytes(column: Any, *, file: bool = True) -> bytes:
    sink = io.BytesIO()
    table = pa.table({"text": column})
    with (pa.ipc.new_file if file else pa.ipc.new_stream)(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()
