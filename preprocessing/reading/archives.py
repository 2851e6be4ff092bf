"""Compressed files as the blocks of what they hold: any number of members, frames or streams.

What a file is, its first bytes say; the suffix only says what it should be. Damage ends the blocks
with a :class:`~preprocessing.reading.base.DamagedError` after everything that came before it.
"""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections.abc import Iterator
from typing import Literal, Protocol

import zstandard

from preprocessing.reading.base import DamagedError

Compression = Literal["gzip", "zstd", "bzip2", "xz"]

SUFFIXES: dict[str, Compression] = {
    "gz": "gzip",
    "gzip": "gzip",
    "zst": "zstd",
    "zstd": "zstd",
    "bz2": "bzip2",
    "xz": "xz",
}

_MAGIC: tuple[tuple[Compression, re.Pattern[bytes]], ...] = (
    ("gzip", re.compile(rb"\x1f\x8b\x08")),
    # A frame, or one that is to be skipped (as parallel compressors write them).
    ("zstd", re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")),
    ("bzip2", re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")),
    ("xz", re.compile(rb"\xfd7zXZ\x00")),
)
MAGIC_BYTES = 10

# Behind a member no text is expected, and so fewer bytes will do: less than the smallest has.
_NEXT_BYTES = 6
_NEXT_MEMBER: dict[Compression, re.Pattern[bytes]] = {
    **dict(_MAGIC),
    "bzip2": re.compile(rb"BZh[1-9]"),
}
_FIRST_BYTES: dict[Compression, bytes] = {
    "gzip": b"\x1f\x8b\x08",
    "zstd": b"\x28\xb5\x2f\xfd",
    "bzip2": b"BZh",
    "xz": b"\xfd7zXZ\x00",
}

# Small, since damage costs what its step would have given, and since a step gives all it can:
# 16 KiB of usual text, and never more than 4 MiB (gzip) or 128 MiB (zstd).
STEP_BYTES = 1 << 12


def compression_by_name(name: str) -> Compression | None:
    """How a file should be compressed, by its suffix."""
    return SUFFIXES.get(name.lower().rpartition(".")[2])


def compression_by_magic(head: bytes) -> Compression | None:
    """How a file is compressed, by its first ``MAGIC_BYTES`` bytes."""
    return next((kind for kind, magic in _MAGIC if magic.match(head)), None)


class _Decoder(Protocol):
    """What the decompressors agree on; one decoder decodes one member, frame or stream."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def _new_decoder(kind: Compression) -> _Decoder:
    if kind == "gzip":
        return zlib.decompressobj(wbits=31)
    if kind == "bzip2":
        return bz2.BZ2Decompressor()
    if kind == "xz":
        return lzma.LZMADecompressor(lzma.FORMAT_XZ)
    # The window is the archive's choice (``--long``); 2 GiB is the largest there is.
    return zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()


_ERRORS = (zlib.error, zstandard.ZstdError, lzma.LZMAError, OSError, EOFError)


def decompressed(blocks: Iterator[bytes], kind: Compression) -> Iterator[bytes]:
    """What the members hold, one after the other; zeros after a member are padding.

    Raises:
        DamagedError: with the offset in what they hold, and the place in the file.
    """
    decoder: _Decoder | None = _new_decoder(kind)
    given = place = 0
    between = b""  # after a member: the first bytes of the next one, as long as they are too few
    for step in _steps(blocks):
        data, between = between + step, b""
        while data:
            if decoder is None:
                # Tapes and some tools pad with zeros after the last member.
                data = data.lstrip(b"\0")
                if len(data) < _NEXT_BYTES:
                    between = data
                    break
                if not _NEXT_MEMBER[kind].match(data):
                    raise _garbage(given, place)
                decoder = _new_decoder(kind)
            try:
                text = decoder.decompress(data)
            except _ERRORS as error:
                raise DamagedError(given, f"{error}; near byte {place} of the file") from error
            if text:
                yield text
                given += len(text)
            data = b""
            if decoder.eof:
                data, decoder = decoder.unused_data, None
        place += len(step)
    if decoder is None and between and not _may_begin(kind, between):
        raise _garbage(given, place)
    if decoder is not None or between:
        raise DamagedError(given, f"the archive ends too early, at byte {place} of the file")


def _steps(blocks: Iterator[bytes]) -> Iterator[bytes]:
    for block in blocks:
        for begin in range(0, len(block), STEP_BYTES):
            yield block[begin : begin + STEP_BYTES]


def _may_begin(kind: Compression, data: bytes) -> bool:
    """Whether a few bytes may be the first ones of a member."""
    magic = _FIRST_BYTES[kind]
    return magic.startswith(data) or data.startswith(magic)


def _garbage(given: int, place: int) -> DamagedError:
    detail = f"what follows the last member is none, near byte {place} of the file"
    return DamagedError(given, detail, complete=True)
