"""Streaming readers of raw text: any fsspec URL, in bounded memory, without losing a record.

A *record* is a document of a raw file: a run of lines between blank lines (``text``), a line
(``lines``), a JSON object a line (``jsonl``) or a row (``parquet``). Every record comes out as a
:class:`Document` or as a :class:`Reject` with its reason; blank lines are separators, no records.
Line ends ``\\r\\n`` and ``\\r`` become ``\\n``; a byte-order mark at the start of a file is
dropped.

Large files are read in *slices*, independently of each other. A record belongs to the slice that
its first byte lies in, so that any cutting gives the same records in the same order:

    b"one\\ntwo\\n\\nthree\\n"  cut at 5:  slice [0, 5) reads "one\\ntwo", slice [5, 15) "three"

Files ending in ``.gz`` (any number of members) and ``.zst`` (any number of frames) are
decompressed on the way and, like Parquet, always read whole.
"""

from __future__ import annotations

import itertools
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Literal, Protocol

import pyarrow as pa
import pyarrow.parquet
import zstandard

from preprocessing.sources import (
    BLOCK_BYTES,
    Compression,
    Form,
    Slice,
    Source,
    compression,
    digest_source,
    list_sources,
    open_bytes,
    split,
)
from preprocessing.storage import InputError

__all__ = [
    "Document",
    "Form",
    "Reject",
    "Slice",
    "Source",
    "digest_source",
    "list_sources",
    "open_bytes",
    "read",
    "split",
]

Reason = Literal[
    "invalid_utf8", "invalid_json", "missing_text", "empty_text", "too_long", "damaged_archive"
]

MAX_RECORD_BYTES = 1 << 28
# Small, since damage costs what its step would have given, and since a step gives all it can:
# 16 KiB of usual text, and never more than 4 MiB (gzip) or 128 MiB (zstd).
ARCHIVE_STEP_BYTES = 1 << 12
PARQUET_ROWS = 256

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Exactly the characters of str.isspace, in UTF-8.
_BLANK = re.compile(
    rb"(?:[\s\x1c-\x1f]|\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f"
    rb"|\xe3\x80\x80)*+\Z"
)


@dataclass(frozen=True)
class Document:
    """A record with its text. ``offset`` counts uncompressed bytes, in Parquet rows."""

    text: str
    url: str
    offset: int


@dataclass(frozen=True)
class Reject:
    """A record that is no document, and why. ``offset`` counts as a document's does."""

    reason: Reason
    url: str
    offset: int
    detail: str


# -- records -------------------------------------------------------------------------------------


class _DamagedError(Exception):
    """A file whose bytes make no sense from ``offset`` on."""

    def __init__(self, offset: int, detail: str) -> None:
        super().__init__(detail)
        self.offset = offset


def read(piece: Slice, form: Form, text_field: str) -> Iterator[Document | Reject]:
    """The records of a slice, in order.

    A bad record never ends the stream. A damaged file gives the records that ended before the
    damage and then one reject.

    Args:
        piece: what to read, from :func:`split`.
        form: how records are marked.
        text_field: key (``jsonl``) or column (``parquet``) of the text; other forms ignore it.

    Raises:
        InputError: the file is gone, has changed its size, or holds no such column.
    """
    url = piece.source.url
    with open_bytes(url) as file:
        size = file.seek(0, 2)
        if size != piece.source.size:
            raise InputError(
                f"{url}: had {piece.source.size} bytes when it was listed and has {size} now; "
                "start again once nobody writes to it"
            )
        try:
            if form == "parquet":
                yield from _read_rows(file, url, text_field)
                return
            for offset, data in _raw_records(file, piece, form):
                yield _record(data, url, offset, text_field if form == "jsonl" else None)
        except _DamagedError as damage:
            detail = f"{damage}; only what ended before is kept"
            yield Reject("damaged_archive", url, damage.offset, detail)


def _raw_records(file: IO[bytes], piece: Slice, form: Form) -> Iterator[tuple[int, bytes | None]]:
    """``(offset, bytes)`` of the records that start in the slice; None for one that is too long."""
    kind = compression(piece.source.url)
    stop = None if kind else piece.stop
    anchor = _line_start(file, piece.start)
    file.seek(anchor)
    blocks = _decompressed(file, kind) if kind else _blocks(file, BLOCK_BYTES)
    lines = _lines(blocks, anchor)
    for offset, data in _grouped(lines, stop) if form == "text" else _single(lines, stop):
        if offset >= piece.start:
            yield offset, data


def _line_start(file: IO[bytes], start: int) -> int:
    """Where the line that holds byte ``start - 1`` begins.

    Reading from there tells for every line from ``start`` on whether it starts a record.
    """
    if start <= 1:
        return 0
    end = start - 1
    file.seek(end - 1)
    if file.read(2) == b"\r\n":
        end -= 1
    while end > 0:
        begin = max(0, end - BLOCK_BYTES)
        file.seek(begin)
        block = file.read(end - begin)
        last = max(block.rfind(b"\n"), block.rfind(b"\r"))
        if last >= 0:
            return begin + last + 1
        end = begin
    return 0


def _lines(blocks: Iterator[bytes], offset: int) -> Iterator[tuple[int, bytes | None]]:
    """Lines with their ends and offsets; None for a line past the limit, which is not kept."""
    held: list[bytes] = []
    held_bytes = dropped = 0
    for block in blocks:
        # A carriage return at the end of a block may be half of a line end.
        ends = b"\n" in block or b"\r" in block or (held and held[-1].endswith(b"\r"))
        held.append(block)
        held_bytes += len(block)
        if not ends:
            if held_bytes > MAX_RECORD_BYTES:
                dropped, held_bytes = dropped + held_bytes, 0
                held.clear()
            continue
        lines = b"".join(held).splitlines(keepends=True)
        held = [] if lines[-1].endswith(b"\n") else [lines.pop()]
        held_bytes = sum(map(len, held))
        for line in lines:
            yield offset, None if dropped else line
            offset, dropped = offset + dropped + len(line), 0
    if held or dropped:
        yield offset, None if dropped else b"".join(held)


def _is_blank(offset: int, line: bytes) -> bool:
    mark = offset == 0 and line.startswith(_BYTE_ORDER_MARK)
    return _BLANK.match(line, len(_BYTE_ORDER_MARK) if mark else 0) is not None


def _single(
    lines: Iterator[tuple[int, bytes | None]], stop: int | None
) -> Iterator[tuple[int, bytes | None]]:
    """Lines that are not blank and start before ``stop``."""
    for offset, line in lines:
        if stop is not None and offset >= stop:
            return
        if line is None or not _is_blank(offset, line):
            yield offset, line


def _grouped(
    lines: Iterator[tuple[int, bytes | None]], stop: int | None
) -> Iterator[tuple[int, bytes | None]]:
    """Runs of lines that are not blank and start before ``stop``."""
    held: list[bytes] = []
    begin = held_bytes = 0
    inside = too_long = False
    for offset, line in lines:
        if line is not None and _is_blank(offset, line):
            if inside:
                yield begin, None if too_long else b"".join(held)
                held.clear()
                inside = False
            continue
        if not inside:
            if stop is not None and offset >= stop:
                return
            begin, held_bytes, inside, too_long = offset, 0, True, False
        held_bytes += 0 if line is None else len(line)
        too_long = too_long or line is None or held_bytes > MAX_RECORD_BYTES
        if too_long or line is None:
            held.clear()
        else:
            held.append(line)
    if inside:
        yield begin, None if too_long else b"".join(held)


def _record(data: bytes | None, url: str, offset: int, key: str | None) -> Document | Reject:
    if data is None:
        limit = f"more than {MAX_RECORD_BYTES} bytes; is the form of the file right?"
        return Reject("too_long", url, offset, limit)
    text = _decoded(data, url, offset)
    if isinstance(text, Reject):
        return text
    if offset == 0:
        text = text.removeprefix("\ufeff")
    if key is None:
        return Document(_normalised(text.rstrip("\r\n")), url, offset)
    return _from_json(text, url, offset, key)


def _decoded(data: bytes, url: str, offset: int) -> str | Reject:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        place = f"byte 0x{data[error.start]:02x} at {error.start} in the record: {error.reason}"
        return Reject("invalid_utf8", url, offset, place)


def _from_json(line: str, url: str, offset: int, key: str) -> Document | Reject:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Reject("invalid_json", url, offset, str(error))
    if not isinstance(value, dict):
        return Reject("invalid_json", url, offset, f"not an object but {_kind(value)}")
    if key not in value:
        keys = ", ".join(list(value)[:8])[:200]
        return Reject("missing_text", url, offset, f"no '{key}' among its keys: {keys}")
    text = value[key]
    if not isinstance(text, str):
        return Reject("missing_text", url, offset, f"'{key}' is {_kind(text)}, not a string")
    if not text or text.isspace():
        return Reject("empty_text", url, offset, f"'{key}' is empty or white space")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair
        return Reject("invalid_utf8", url, offset, f"character {error.start}: {error.reason}")
    return Document(_normalised(text), url, offset)


def _kind(value: Any) -> str:
    return "null" if value is None else f"of type {type(value).__name__}"


def _normalised(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


# -- compressed files and Parquet ----------------------------------------------------------------


class _Decoder(Protocol):
    """What zlib and zstandard agree on; one decoder decodes one member or frame."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def _new_decoder(kind: Compression) -> _Decoder:
    if kind == "gzip":
        return zlib.decompressobj(wbits=31)
    # The window is the archive's choice (``--long``); 2 GiB is the largest there is.
    return zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()


def _blocks(file: IO[bytes], size: int) -> Iterator[bytes]:
    while block := file.read(size):
        yield block


def _decompressed(file: IO[bytes], kind: Compression) -> Iterator[bytes]:
    """What an archive's members or frames hold, one after the other."""
    decoder: _Decoder | None = _new_decoder(kind)
    offset = 0
    for step in _blocks(file, ARCHIVE_STEP_BYTES):
        data = step
        while data:
            if decoder is None:
                # Tapes and some tools pad with zeros after the last member.
                data = data.lstrip(b"\0")
                if not data:
                    break
                decoder = _new_decoder(kind)
            try:
                block = decoder.decompress(data)
            except (zlib.error, zstandard.ZstdError) as error:
                raise _DamagedError(offset, str(error)) from error
            if block:
                yield block
                offset += len(block)
            data = b""
            if decoder.eof:
                data, decoder = decoder.unused_data, None
    if decoder is not None:
        raise _DamagedError(offset, "the archive ends too early")


def _read_rows(file: IO[bytes], url: str, column: str) -> Iterator[Document | Reject]:
    row = 0
    try:
        table = pa.parquet.ParquetFile(
            file, pre_buffer=False, buffer_size=BLOCK_BYTES, page_checksum_verification=True
        )
        _check_column(table.schema_arrow, url, column)
        groups = range(table.num_row_groups)
        # One group at a time: pyarrow would read the next one ahead, and trip over its damage.
        for batch in itertools.chain.from_iterable(
            table.iter_batches(PARQUET_ROWS, [group], [column], use_threads=False)
            for group in groups
        ):
            # As bytes, since Parquet does not keep its promise that strings are UTF-8.
            for data in batch.column(0).cast(pa.large_binary()).to_pylist():
                yield _row(data, url, row, column)
                row += 1
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's or the network's fault, not the file's
        raise _DamagedError(row, str(error)) from error


def _row(data: bytes | None, url: str, row: int, column: str) -> Document | Reject:
    if data is None:
        return Reject("missing_text", url, row, f"'{column}' is null")
    if _BLANK.match(data):
        return Reject("empty_text", url, row, f"'{column}' is empty or white space")
    text = _decoded(data, url, row)
    return text if isinstance(text, Reject) else Document(_normalised(text), url, row)


def _check_column(schema: pa.Schema, url: str, column: str) -> None:
    if schema.get_field_index(column) < 0:
        names = ", ".join(schema.names[:20])
        raise InputError(f"{url}: no column '{column}'; there are: {names}. Set text_field")
    kind = schema.field(column).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if kind not in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary()):
        raise InputError(f"{url}: column '{column}' holds {kind}, not text; set text_field")
