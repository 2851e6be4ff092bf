"""Places in object stores, which stand wherever a ``Path`` of this machine does."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import io
import os
import stat
from collections.abc import Callable, Generator, Iterator
from pathlib import Path, PosixPath
from typing import IO, Any

from fsspec.core import split_protocol

from preprocessing import remote
from preprocessing.errors import InputError
from preprocessing.redaction import redact
from preprocessing.remote import Result

OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "memory"})
"""Protocols under which an object appears whole or not at all: what output needs."""


def to_place(text: object) -> Path:
    """A directory from a configuration: a path of this machine, or a URL of an object store.

    Raises:
        ValueError: no path, a URL that nothing can be written to, or one that holds credentials.
    """
    if not isinstance(text, str):
        raise ValueError("Input should be a path or the URL of an object store")
    protocol, rest = split_protocol(text)
    if protocol in (None, "file", "local"):
        return Path(rest)
    if protocol not in OBJECT_STORES or "::" in text:
        raise ValueError(
            f"{protocol}:// is no place for output; give a local path, or a URL of an object "
            f"store: {', '.join(sorted(OBJECT_STORES))}"
        )
    if redact(text) != text or "?" in text:
        raise ValueError(
            "credentials and queries do not belong here; set them in the environment, or in the "
            "configuration files of fsspec or of the store's library"
        )
    return RemotePath(text)


class RemotePath(PosixPath):
    """A place in an object store, as ``s3://bucket/folder/file``.

    It does what the stages ask of a ``Path``; whatever else wants a file of this machine (``open``,
    ``os``, a library) gets an InputError that says so. There are no directories to make: they are
    there as long as something is in them.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)

    def __fspath__(self) -> str:
        raise InputError(
            f"{self}: lies in an object store, and this needs it on this machine: copy it to a "
            "local directory, and name that one"
        )

    def absolute(self) -> RemotePath:
        """It is."""
        return self

    def exists(self, **_: bool) -> bool:
        """Whether there is an object of this name, or anything below it."""
        return self._info() is not None

    def is_dir(self, **_: bool) -> bool:
        """Whether there is something below it."""
        info = self._info()
        return info is not None and info["type"] == "directory"

    def is_file(self, **_: bool) -> bool:
        """Whether there is an object of this name."""
        info = self._info()
        return info is not None and info["type"] == "file"

    def stat(self, **_: bool) -> os.stat_result:
        """Size and date of an object (1970 where the store does not tell)."""
        info = self._info()
        if info is None:
            raise FileNotFoundError(errno.ENOENT, "no such object", str(self))
        mode = stat.S_IFDIR if info["type"] == "directory" else stat.S_IFREG
        dates = (info.get(key) for key in ("LastModified", "last_modified", "updated", "created"))
        date = next((date.timestamp() for date in dates if hasattr(date, "timestamp")), 0.0)
        return os.stat_result((mode, 0, 0, 1, 0, 0, info["size"] or 0, date, date, date))

    def open(self, mode: str = "r", *_: Any, encoding: str | None = None, **__: Any) -> IO[Any]:  # type: ignore[override]
        """Open an object for reading."""
        if mode not in ("r", "rb"):
            raise InputError(f"{self}: objects are written whole, not opened for writing")
        file = remote.open_url(str(self))
        return file if mode == "rb" else io.TextIOWrapper(file, encoding=encoding or "utf-8")

    def read_bytes(self) -> bytes:
        """The whole object."""
        with self.open("rb") as file:
            data: bytes = file.read()
        return data

    def read_range(self, begin: int, end: int) -> bytes:
        """The bytes ``[begin, end)`` of an object.

        Raises:
            UnreachableError: they did not all arrive, in any attempt.
        """

        def fetch(system: Any, path: str) -> bytes:
            data = bytes(system.cat_file(path, start=begin, end=end))
            if len(data) != end - begin:
                raise OSError(f"{len(data)} bytes arrived of {end - begin}")
            return data

        return self._ask("read", fetch)

    def read_text(self, encoding: str | None = None, *_: Any) -> str:
        """The whole object as text."""
        return self.read_bytes().decode(encoding or "utf-8")

    def write_bytes(self, data: Any) -> int:
        """An object, whole or absent."""
        whole = bytes(data)
        self._ask("write", lambda system, path: system.pipe_file(path, whole))
        return len(whole)

    def upload(self, file: Path) -> None:
        """Put a local file here, whole or not at all."""
        size = file.stat().st_size

        def put(system: Any, path: str) -> None:
            system.put_file(str(file), path)
            system.invalidate_cache()
            arrived = system.info(path)["size"]
            if arrived != size:
                raise OSError(f"{arrived} bytes arrived of {size}")

        self._ask("write", put, limit=remote.LIMIT + size / remote.SLOWEST_UPLOAD)

    def iterdir(self) -> Generator[RemotePath, None, None]:
        """What lies directly below; nothing where there is no such folder."""
        with contextlib.suppress(FileNotFoundError):
            found = self._ask("list", lambda system, path: system.ls(path, detail=False))
            names = {str(name).rstrip("/").rpartition("/")[2] for name in found}
            yield from (self / name for name in sorted(names - {"", self.name}))

    def find(self) -> dict[RemotePath, int]:
        """All objects below it, with their sizes."""
        try:
            found = self._ask("list", lambda system, path: system.find(path, detail=True))
        except FileNotFoundError:
            return {}
        _, root = remote.connect(str(self))
        depth = len(root.rstrip("/")) + 1
        return {self / name[depth:]: info["size"] for name, info in sorted(found.items())}

    def rglob(self, pattern: str, **_: Any) -> Iterator[RemotePath]:  # type: ignore[override]
        """The objects below it whose names fit."""
        yield from (path for path in self.find() if fnmatch.fnmatchcase(path.name, pattern))

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing is to be done."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove an object."""
        try:
            self._ask("remove", lambda system, path: system.rm_file(path))
        except (FileNotFoundError, KeyError):
            if not missing_ok:
                raise FileNotFoundError(errno.ENOENT, "no such object", str(self)) from None

    def remove_tree(self) -> None:
        """Remove everything below it."""
        with contextlib.suppress(FileNotFoundError):
            self._ask("remove", lambda system, path: system.rm(path, recursive=True))

    def _info(self) -> Any:
        # fsspec's own ``exists`` takes a network that failed for a file that is not there.
        try:
            return self._ask("look at", lambda system, path: system.info(path))
        except FileNotFoundError:
            return None

    def _ask(
        self, what: str, request: Callable[[Any, str], Result], *, limit: float | None = None
    ) -> Result:
        def make() -> Result:
            system, path = remote.connect(str(self))
            system.invalidate_cache()  # others write there too
            return request(system, path)

        return remote.ask(what, str(self), make, limit=limit)
