"""Streaming readers of raw files: any fsspec URL, in bounded memory, without losing a record.

A *record* is a document of a raw file: a run of lines between blank lines (``text``), a line
(``lines``), a file (``file``), a JSON value, a row, an article. Every record comes out as one of
:class:`Documents` or as a :class:`Reject` with its reason; blank lines are separators, no records.
Line ends ``\\r\\n`` and ``\\r`` become ``\\n``; NUL and other control characters stay what they
are; a byte-order mark at the start of a file says its encoding and is dropped.

Compressed files (``.gz``, ``.zst``, ``.bz2``, ``.xz``) are decompressed on the way, any number of
members, frames or streams. What a file is, its first bytes say: one without such a suffix is
decompressed too, and one with it that is nothing of the kind is a reject.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa

from preprocessing.reading import archives, encodings
from preprocessing.reading.admission import admit, oversized, oversized_record
from preprocessing.reading.base import DamagedError, Documents, Found, Reject, Split, gathered
from preprocessing.reading.blanks import is_blank, spaces_end
from preprocessing.reading.columnar import arrow_rows, parquet_rows
from preprocessing.reading.delimited import rows_of
from preprocessing.reading.hub import hub_rows, is_hub
from preprocessing.reading.json_forms import json_array, json_lines
from preprocessing.reading.lines import Oversized, Range, Spans, line_start, scan
from preprocessing.reading.megatron import token_documents
from preprocessing.reading.settings import LINE_FORMS, TEXT_FORMS, ReadingConfig
from preprocessing.reading.sources import Slice, SliceDigest, open_bytes, read_blocks, shown
from preprocessing.reading.splitting import cut
from preprocessing.reading.wikiextractor import articles
from preprocessing.storage import InputError


def read(
    piece: Slice, reading: ReadingConfig, digest: SliceDigest | None = None
) -> Iterator[Documents | Reject | Split]:
    """The records of a slice: documents in their order, and rejects among them.

    A bad record never ends the stream. A damaged file gives the records that ended before the
    damage and then one reject.

    Args:
        piece: what to read, from :func:`~preprocessing.reading.sources.split`.
        reading: how records are marked, and where their text stands.
        digest: takes the bytes of the slice along.

    Raises:
        InputError: the file is gone, has changed its size, or holds no such column.
    """
    if is_hub(piece.source):
        for row in hub_rows(piece.source, reading):
            yield from admit(row, reading) if isinstance(row, Found) else [row]
        return
    name = shown(piece.source.url)
    with open_bytes(piece.source.url) as file:
        size = file.seek(0, 2)
        if size != piece.source.size:
            raise InputError(
                f"{name}: had {piece.source.size} bytes when it was listed and has {size} now; "
                "start again once nobody writes to it"
            )
        try:
            for found in _found(file, piece, reading, digest, name):
                if isinstance(found, Found):
                    yield from admit(found, reading)
                elif isinstance(found, Oversized):
                    yield _too_large(found, reading)
                else:
                    yield found
        except DamagedError as damage:
            kept = "all that came" if damage.complete else "only what ended"
            detail = f"{damage}; {kept} before is kept"
            yield Reject("damaged_archive", damage.offset, detail)


def _found(
    file: IO[bytes], piece: Slice, reading: ReadingConfig, digest: SliceDigest | None, name: str
) -> Iterator[Found | Reject | Oversized]:
    if reading.form == "megatron":
        yield from token_documents(file, piece, reading)
        return
    if reading.form not in TEXT_FORMS:
        file.seek(0)
        rows = parquet_rows if reading.form == "parquet" else arrow_rows
        yield from rows(file, reading, name)
        return
    content = _content(file, piece, reading, digest)
    if content is None:
        return
    yield from _records(content, reading, name)
    if content.damage:
        raise content.damage[0]


@dataclass(frozen=True)
class _Content:
    """The text of a slice, or of a file.

    Attributes:
        blocks: UTF-8, as far as it is valid, from ``wanted.origin`` on.
        wanted: the records that belong to the slice.
        damage: filled once the blocks have ended by themselves before some garbage.
    """

    blocks: Iterator[bytes]
    wanted: Range
    damage: list[DamagedError]


def _content(
    file: IO[bytes], piece: Slice, reading: ReadingConfig, digest: SliceDigest | None
) -> _Content | None:
    """What a slice has to read; None where another slice reads the whole file."""
    file.seek(0)
    head = file.read(archives.MAGIC_BYTES)
    suffix = archives.compression_by_name(piece.source.url)
    kind = archives.compression_by_magic(head)
    if suffix and not kind:
        detail = f"no {suffix} archive, as its name says"
        detail = f"{detail}, but empty" if not head else f"{detail}: it begins with {head!r}"
        raise DamagedError(0, f"{detail}. Rename it where it is plain text")
    mark = None if kind else encodings.byte_order_mark(head)
    encoding = mark[0] if mark else reading.encoding_name
    if (kind or encoding != "utf-8") and piece.start > 0:
        return None
    start, in_text = 0, False
    if piece.start > 0:
        start, in_text = line_start(file, piece.start)
    file.seek(start)
    blocks = read_blocks(file)
    if digest:
        blocks = digest.passing(blocks, start)
    damage: list[DamagedError] = []
    if kind:
        blocks = _until_garbage(archives.decompressed(blocks, kind), damage)
    origin = start
    if start == 0:
        name = shown(piece.source.url)
        blocks, encoding, origin = _without_mark(blocks, reading.encoding_name, name)
    if encoding != "utf-8":
        blocks = encodings.transcoded(blocks, encoding)
        origin = 0
    whole = kind is not None or encoding != "utf-8" or reading.form not in LINE_FORMS
    stop = None if whole else piece.stop
    return _Content(blocks, Range(piece.start, stop, origin, in_text), damage)


def _until_garbage(blocks: Iterator[bytes], damage: list[DamagedError]) -> Iterator[bytes]:
    try:
        yield from blocks
    except DamagedError as error:
        if not error.complete:
            raise
        damage.append(error)


def _without_mark(
    blocks: Iterator[bytes], encoding: str, name: str
) -> tuple[Iterator[bytes], str, int]:
    """The same blocks behind the byte-order mark, what it says, and its length.

    Raises:
        InputError: there is none, and nothing else says the order of the bytes.
    """
    head = b""
    damage: DamagedError | None = None
    try:
        while len(head) < encodings.MARK_BYTES and (block := next(blocks, b"")):
            head += block
    except DamagedError as error:
        damage = error
    mark = encodings.byte_order_mark(head)
    if head and not mark and encoding in encodings.UNORDERED:
        raise InputError(
            f"{name}: no byte-order mark says which {encoding} it is; set encoding: {encoding}-le "
            f"(usual where it was written on Windows) or {encoding}-be, for this file by a source "
            "of its own"
        )
    encoding, length = mark if mark else (encoding, 0)

    def rest() -> Iterator[bytes]:
        if head[length:]:
            yield head[length:]
        if damage:
            raise damage
        yield from blocks

    return rest(), encoding, length


def _records(
    content: _Content, reading: ReadingConfig, name: str
) -> Iterator[Found | Reject | Oversized]:
    blocks, origin = content.blocks, content.wanted.origin
    match reading.form:
        case "text" | "lines":
            limit, split = reading.max_document_bytes, reading.oversized == "split"
            grouped = reading.form == "text"
            for spans in scan(blocks, content.wanted, grouped=grouped, limit=limit, split=split):
                yield _texts(spans) if isinstance(spans, Spans) else spans
        case "jsonl":
            yield from _json_lines(content, reading)
        case "json":
            yield from json_array(blocks, origin, reading)
        case "csv" | "tsv":
            yield from rows_of(blocks, origin, reading, name)
        case "file":
            yield from _one(blocks, origin, reading)
        case "wikiextractor":
            first = b""
            while is_blank(first) and (block := next(blocks, b"")):
                first += block
            begin = spaces_end(first, 0, len(first))
            blocks = itertools.chain([first], blocks)
            if first[begin : begin + 1] == b"{":
                whole = _Content(blocks, content.wanted, content.damage)
                yield from _json_lines(whole, reading)
            else:
                yield from articles(blocks, origin, reading)


def _json_lines(content: _Content, reading: ReadingConfig) -> Iterator[Found | Reject | Oversized]:
    limit = reading.max_record_bytes
    for spans in scan(content.blocks, content.wanted, grouped=False, limit=limit, split=False):
        if isinstance(spans, Spans):
            yield from json_lines(spans, reading)
        else:
            yield oversized_record(spans.offset, reading)


def _texts(spans: Spans) -> Found:
    data = spans.data
    places = zip(spans.starts.tolist(), spans.ends.tolist(), strict=True)
    texts = pa.array([data[begin:end] for begin, end in places], pa.large_binary())
    return Found(texts, spans.starts + spans.offset)


def _too_large(found: Oversized, reading: ReadingConfig) -> Reject | Split:
    if reading.oversized == "split":
        return Split(found.offset)
    return oversized(found.offset, reading.max_document_bytes)


def _one(
    blocks: Iterator[bytes], origin: int, reading: ReadingConfig
) -> Iterator[Found | Oversized]:
    """The whole file as one record, in pieces where it is too large."""
    limit = reading.max_document_bytes
    carry, at, large = b"", origin, False

    def carried() -> int:
        return len(carry)

    for block in itertools.chain(gathered(blocks, carried), [b""]):
        carry += block
        # Line ends at the end of the file are not part of the document.
        while len(carry.rstrip(b"\r\n")) > limit:
            if not large:
                yield Oversized(origin)
            if reading.oversized == "reject":
                return
            large = True
            end, _ = cut(carry, 0, limit)
            yield from _piece(carry[:end], at)
            carry, at = carry[end:], at + end
    yield from _piece(carry, at) if large else [_single(carry, at)]


def _single(data: bytes, at: int) -> Found:
    return Found(pa.array([data.rstrip(b"\r\n")], pa.large_binary()), np.array([at]))


def _piece(data: bytes, at: int) -> Iterator[Found]:
    if not is_blank(data):
        yield _single(data, at)
