"""Raw files: which ones a configuration means, how tasks share them, and how they are opened."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Literal

from fsspec.core import url_to_fs

from preprocessing.storage import InputError

Form = Literal["text", "lines", "jsonl", "parquet"]
Compression = Literal["gzip", "zstd"]

BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """A raw file: a local absolute path or an fsspec URL, and its size in bytes."""

    url: str
    size: int


@dataclass(frozen=True)
class Slice:
    """The records of a source whose first byte lies in [start, stop)."""

    source: Source
    start: int
    stop: int


def compression(url: str) -> Compression | None:
    """How a file is compressed, by its suffix."""
    suffixes: dict[str, Compression] = {"gz": "gzip", "zst": "zstd"}
    return suffixes.get(url.lower().rpartition(".")[2])


def list_sources(patterns: Sequence[str]) -> list[Source]:
    """The files that paths, URLs and globs stand for, sorted by URL, each once.

    Raises:
        InputError: a pattern that matches no file, a directory, a file that cannot be read, a
            protocol that is unknown or whose package is not installed.
    """
    sources = {source.url: source for pattern in patterns for source in _expand(pattern)}
    return [sources[url] for url in sorted(sources)]


def _expand(pattern: str) -> list[Source]:
    system, path = _resolve(pattern)
    chained = "::" in pattern
    with _explained(pattern):
        # First of all, since to ask a web server for a directory is to read the whole page.
        if system.isfile(path):
            return [_source(system, path, system.info(path), pattern if chained else None)]
        if system.isdir(path):
            raise InputError(f"{pattern}: is a directory; name its files, as in {pattern}/*.txt")
        is_glob = any(character in path for character in "*?[")
        if chained and is_glob:
            raise InputError(f"{pattern}: no globs in a chained URL; name the files one by one")
        found = system.glob(path, detail=True) if is_glob else {}
        files = {name: info for name, info in found.items() if info["type"] != "directory"}
        if not files:
            raise InputError(
                f"{pattern}: no such file; check the path (a glob is understood: *, ?, [a-z], **)"
            )
        return [_source(system, name, info, None) for name, info in files.items()]


def _source(system: Any, path: str, info: Mapping[str, Any], url: str | None) -> Source:
    size = info.get("size")
    if size is None:
        raise InputError(f"{path}: its size is not known; copy it to where it has one")
    if _is_local(system):
        with open(path, "rb"):  # what may not be read is found now and not after an hour
            return Source(path, int(size))
    return Source(url or system.unstrip_protocol(path), int(size))


def _is_local(system: Any) -> bool:
    return "file" in (system.protocol if isinstance(system.protocol, tuple) else [system.protocol])


def split(sources: Sequence[Source], form: Form, target_bytes: int) -> list[tuple[Slice, ...]]:
    """Plan tasks of about ``target_bytes`` of input each; a pure function of its parameters.

    Uncompressed lines are cut anywhere into equal slices. Compressed files and Parquet stay whole.
    Small neighbours share a task.
    """
    if target_bytes < 1:
        raise ValueError(f"target_bytes must be at least 1, not {target_bytes}")
    tasks: list[tuple[Slice, ...]] = []
    task: list[Slice] = []
    taken = 0
    for source in sources:
        whole = form == "parquet" or compression(source.url) is not None
        count = 1 if whole else max(1, round(source.size / target_bytes))
        bounds = [source.size * index // count for index in range(count + 1)]
        for start, stop in itertools.pairwise(bounds):
            if task and taken + stop - start > target_bytes:
                tasks.append(tuple(task))
                task, taken = [], 0
            task.append(Slice(source, start, stop))
            taken += stop - start
    return [*tasks, tuple(task)] if task else tasks


def digest_source(source: Source) -> str:
    """Digest (blake2b, 128 bits, hexadecimal) of a source's bytes as they lie there."""
    state = hashlib.blake2b(digest_size=16)
    with open_bytes(source.url) as file:
        while block := file.read(BLOCK_BYTES):
            state.update(block)
    return state.hexdigest()


@contextlib.contextmanager
def open_bytes(url: str) -> Iterator[IO[bytes]]:
    """A binary file that can seek; what the disk or the network does to it is an InputError."""
    system, path = _resolve(url)
    with _explained(url), system.open(path, "rb", block_size=BLOCK_BYTES) as file:
        yield file


def _resolve(url: str) -> tuple[Any, str]:
    try:
        system, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise InputError(f"{url}: cannot be opened: {error}") from error
    return system, path


@contextlib.contextmanager
def _explained(url: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{url}: cannot be read: {error.strerror or error}") from error
