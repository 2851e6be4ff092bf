"""Raw files: how tasks share them, how they are opened, what identifies them, what they are called.

Which files a configuration means is decided in :mod:`preprocessing.reading.listing`.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from preprocessing.reading.archives import compression_by_name
from preprocessing.reading.settings import LINE_FORMS, ReadingConfig
from preprocessing.redaction import redact
from preprocessing.remote import open_url
from preprocessing.storage import InputError

BLOCK_BYTES = 1 << 20

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:://|::)")


@dataclass(frozen=True)
class Source:
    """A raw file.

    Attributes:
        url: a local absolute path or an fsspec URL. It may hold credentials: print ``shown(url)``.
        size: in bytes.
        mark: what the store says of its content (an entity tag, a checksum), where it does.
    """

    url: str
    size: int
    mark: str | None = None


@dataclass(frozen=True)
class Slice:
    """The records of a source whose first byte lies in [start, stop)."""

    source: Source
    start: int
    stop: int


def is_url(text: str) -> bool:
    """Whether it names a file by a protocol, and not one of this machine."""
    return _URL.match(text) is not None and not os.path.lexists(text)


def shown(url: str) -> str:
    """A file's name for people: without credentials, on one line, in characters."""
    name = os.fsencode(redact(url)).decode(errors="backslashreplace")
    return name.replace("\n", "\\n").replace("\r", "\\r")


def split(
    sources: Sequence[Source], reading: ReadingConfig, target_bytes: int
) -> list[tuple[Slice, ...]]:
    """Plan tasks of about ``target_bytes`` of input each; a pure function of its parameters.

    Files of UTF-8 lines, and Megatron's, are cut anywhere into equal slices. All others stay
    whole. Small neighbours share a task.
    """
    if target_bytes < 1:
        raise ValueError(f"target_bytes must be at least 1, not {target_bytes}")
    tasks: list[tuple[Slice, ...]] = []
    task: list[Slice] = []
    taken = 0
    for source in sources:
        count = max(1, round(source.size / target_bytes)) if can_cut(source, reading) else 1
        bounds = [source.size * index // count for index in range(count + 1)]
        for start, stop in itertools.pairwise(bounds):
            if task and taken + stop - start > target_bytes:
                tasks.append(tuple(task))
                task, taken = [], 0
            task.append(Slice(source, start, stop))
            taken += stop - start
    return [*tasks, tuple(task)] if task else tasks


def can_cut(source: Source, reading: ReadingConfig) -> bool:
    """Whether slices of a file can be read independently of each other."""
    if reading.form == "megatron":
        return True
    lines = reading.form in LINE_FORMS and reading.encoding_name == "utf-8"
    return lines and compression_by_name(source.url) is None


@contextlib.contextmanager
def open_bytes(url: str) -> Iterator[IO[bytes]]:
    """A binary file that can seek; what the disk or the network does to it is an InputError.

    Raises:
        InputError: there is no such file, it may not be read, it is a pipe or a device, or the
            server does not answer in time.
    """
    try:
        if is_url(url):
            with open_url(url) as remote:
                yield remote
            return
        # To open a pipe is to wait for its writer.
        if not stat.S_ISREG(os.stat(url).st_mode):
            raise InputError(f"{shown(url)}: is no regular file; copy what it gives into one")
        with open(url, "rb", buffering=0) as file:
            yield file
    except OSError as error:
        reason = error.strerror or redact(str(error))
        raise InputError(f"{shown(url)}: cannot be read: {reason}") from error


def read_blocks(file: IO[bytes], size: int = BLOCK_BYTES) -> Iterator[bytes]:
    """A file from where it stands to its end."""
    while block := file.read(size):
        yield block


class SliceDigest:
    """Digest of a slice's bytes, taken along while they are read for their records.

    Readers say what passes (:meth:`passing`); what none of them has read by the end, or what they
    read in another order, :meth:`finish` reads itself.
    """

    def __init__(self, piece: Slice) -> None:
        self._state = hashlib.blake2b(digest_size=16)
        self._at = piece.start
        self._stop = piece.stop

    def passing(self, blocks: Iterator[bytes], offset: int) -> Iterator[bytes]:
        """The same blocks; ``offset`` is the place of the first one in the file."""
        for block in blocks:
            begin, end = self._at - offset, self._stop - offset
            if 0 <= begin < len(block) and begin < end:
                part = memoryview(block)[begin:end]
                self._state.update(part)
                self._at += len(part)
            offset += len(block)
            yield block

    def finish(self, file: IO[bytes]) -> str:
        """The digest (BLAKE2b-128, hexadecimal) of all bytes of the slice."""
        file.seek(self._at)
        while self._at < self._stop:
            block = file.read(min(BLOCK_BYTES, self._stop - self._at))
            if not block:
                break
            self._state.update(block)
            self._at += len(block)
        return self._state.hexdigest()


def compose_digests(digests: Sequence[str]) -> str:
    """A file's digest from those of its slices in their order."""
    return hashlib.blake2b("\n".join(digests).encode(), digest_size=16).hexdigest()


def digest_slices(slices: Sequence[Slice]) -> str:
    """A file's digest, reading it."""
    digests = []
    for piece in slices:
        with open_bytes(piece.source.url) as file:
            digests.append(SliceDigest(piece).finish(file))
    return compose_digests(digests)


def short_names(sources: Sequence[Source]) -> dict[str, str]:
    """Names of the files without what all of them share, so that no machine's paths are kept.

    Nor is a query, which may hold a signature; files that only differ in theirs get a number.
    """
    paths = {source.url: _path(source.url) for source in sources}
    folders = [path.split("/")[:-1] for path in paths.values()]
    shared = 0
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        shared += 1
    names: dict[str, str] = {}
    used: dict[str, int] = {}
    for url, path in paths.items():
        # Names on disk are bytes; what is not UTF-8 in them is spelled out.
        name = os.fsencode("/".join(path.split("/")[shared:])).decode(errors="backslashreplace")
        used[name] = used.get(name, 0) + 1
        names[url] = name if used[name] == 1 else f"{name}#{used[name]}"
    return names


def _path(url: str) -> str:
    return redact(url.partition("?")[0]) if is_url(url) else url
