"""Document shards: their columns, and the log of what did not become a document.

Ingest, clean and deduplicate all write this form. A document's id is the digest of its text, so
equal texts have equal ids wherever they stand.

    stage directory/
      train/part-00000.arrow        documents
      rejects/train-00000.jsonl     {"reason", "source", "offset", "detail", "id"?} a line
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.storage import HashingFile, ShardWriter, atomic_write, open_shard
from preprocessing.texts import Texts

SCHEMA = pa.schema(
    [
        pa.field("id", pa.binary(16), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("language", pa.string()),
        pa.field("licence", pa.string()),
    ]
)
"""``source`` names the raw file (behind the name of its source, where sources have names),
``offset`` the place of the record in it; ``language`` and ``licence`` are null where unknown."""

ROWS_PER_BATCH = 256
BATCH_BYTES = 1 << 24
"""A record batch ends with 256 documents, or with the one that brings it to 16 MiB of text."""


def document_id(text: str) -> bytes:
    """BLAKE2b-128 of the text's UTF-8 bytes."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def read_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The record batches of a document shard, in order."""
    reader = open_shard(path)
    for index in range(reader.num_record_batches):
        yield reader.get_batch(index)


def document_ids(texts: pa.LargeStringArray) -> pa.FixedSizeBinaryArray:
    """The :func:`document_id` of each text of a column without nulls."""
    column = Texts.of(texts)
    data, places = column.data.data, column.offsets.tolist()
    digests = [
        hashlib.blake2b(data[begin:end], digest_size=16).digest()
        for begin, end in itertools.pairwise(places)
    ]
    buffer = pa.py_buffer(b"".join(digests))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(digests), [None, buffer])


class DocumentWriter:
    """Writes documents in record batches of bounded size, however large the documents are.

    Where batches end depends on the documents alone, not on how they were handed over.
    """

    def __init__(self, writer: ShardWriter) -> None:
        self._writer = writer
        self._rows = self._bytes = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Append documents of :data:`SCHEMA`."""
        sizes = pc.binary_length(batch.column("text")).to_numpy()
        begin = 0
        while begin < len(sizes):
            total = self._bytes + np.cumsum(sizes[begin : begin + ROWS_PER_BATCH - self._rows])
            count = min(len(total), int(np.searchsorted(total, BATCH_BYTES)) + 1)
            self._writer.write(batch.slice(begin, count))
            begin += count
            self._rows, self._bytes = self._rows + count, int(total[count - 1])
            if self._rows == ROWS_PER_BATCH or self._bytes >= BATCH_BYTES:
                self._writer.end_batch()
                self._rows = self._bytes = 0


@dataclass(frozen=True)
class Rejected:
    """A row of the reject log.

    Attributes:
        reason: what the manifest counts it under.
        source: as in the document's column.
        offset: as in the document's column.
        detail: a sentence for a person.
        id: hexadecimal document id, where it had become a document already.
    """

    reason: str
    source: str
    offset: int
    detail: str
    id: str | None = None

    def line(self) -> str:
        """The row as the log has it."""
        plain = {
            "reason": self.reason,
            "source": self.source,
            "offset": self.offset,
            "detail": self.detail,
        }
        plain |= {"id": self.id} if self.id else {}
        return json.dumps(plain, ensure_ascii=False) + "\n"


def log_name(split: str, number: int) -> str:
    """Where the reject log of a shard lies below its stage's directory."""
    return f"rejects/{split}-{number:05d}.jsonl"


class RejectLog:
    """The reject log of one task, written as it grows; no file where nothing was rejected."""

    def __init__(self, directory: Path, split: str, number: int) -> None:
        self._path = directory / log_name(split, number)
        self._open = contextlib.ExitStack()
        self._file: HashingFile | None = None
        self._lines: list[str] = []

    def __enter__(self) -> RejectLog:
        return self

    def add(self, row: Rejected) -> None:
        """Append a row."""
        self._lines.append(row.line())
        if len(self._lines) == 1024:
            self._write()

    def _write(self) -> None:
        if self._file is None:
            self._file = self._open.enter_context(atomic_write(self._path))
        self._file.write("".join(self._lines).encode(errors="backslashreplace"))
        self._lines.clear()

    def __exit__(self, *error: Any) -> None:
        try:
            if self._lines and error[0] is None:
                self._write()
        except BaseException:
            self._open.__exit__(*sys.exc_info())  # no half of a log stays
            raise
        self._open.__exit__(*error)
