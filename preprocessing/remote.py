"""Files far away: every request has a time limit, is made again where it failed, tells no secrets.

:func:`open_url` reads from any URL that fsspec knows. All requests go through :func:`ask`: one that
has not come back in time is given up, even while the server still drips a byte a second, and made
anew after a pause. What fails to the end is an :class:`UnreachableError`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

import fsspec
from fsspec.core import split_protocol, url_to_fs

from preprocessing.errors import InputError, UnreachableError, is_disk_full
from preprocessing.redaction import redact

Result = TypeVar("Result")

LIMIT = 120.0
"""Seconds that one request may take in all; one for a block comes to 35 kB/s at least."""
CONNECT_LIMIT = 10.0
SILENCE_LIMIT = 30.0
"""Seconds without a byte after which the store's own library gives a connection up."""
PAUSES = (0.5, 2.0, 8.0)
"""Seconds between the attempts at one request."""
BLOCK_BYTES = 1 << 22
SLOWEST_UPLOAD = 100_000
"""Bytes a second that an upload may be expected to reach."""

_CERTAIN = (
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    ImportError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
"""Errors that would be the same once more."""
_PASSING_CLIENT_ERRORS = (408, 425, 429)
_NOT_THERE = (404, 410)


# -- requests ------------------------------------------------------------------------------------


def ask(
    what: str, url: str, request: Callable[[], Result], *, limit: float | None = None
) -> Result:
    """Make a request, several times if it must be, each within the time limit.

    Args:
        what: a verb for the error, as ``read``.
        url: the place, for the error.
        request: called in a thread of its own, which is left to itself when it takes too long.
        limit: seconds for each attempt, :data:`LIMIT` if not given.

    Raises:
        UnreachableError: no attempt succeeded.
        OSError, InputError: what another attempt would not change, as a missing file.
    """
    for pause in (*PAUSES, None):
        try:
            return within(LIMIT if limit is None else limit, request)
        except Exception as raised:  # every store's library has kinds of its own
            error = _cause(raised)
            if isinstance(error, FileNotFoundError):
                raise FileNotFoundError(errno.ENOENT, "no such file", redact(url)) from None
            if isinstance(error, _CERTAIN) or is_disk_full(error):
                raise
            status = getattr(error, "status", None)
            refused = isinstance(status, int) and 400 <= status < 500
            sentence = f"{redact(url)}: could not {what}: {type(error).__name__}: " + redact(
                str(error)
            )
            if refused and status not in _PASSING_CLIENT_ERRORS:
                raise InputError(sentence) from None
            if isinstance(error, TimeoutError):
                _forget(url)
            if pause is None:
                raise UnreachableError(
                    f"{sentence} ({len(PAUSES) + 1} attempts); start again when it is back: what "
                    "is finished is kept"
                ) from None
            time.sleep(pause)
    raise AssertionError


def _cause(error: Exception) -> Exception:
    """The error itself; fsspec takes a web server that does not answer for a missing file."""
    cause = error.__cause__
    disguised = (
        isinstance(error, FileNotFoundError)
        and (isinstance(cause, OSError) or type(cause).__module__.startswith("aiohttp."))
        and getattr(cause, "status", None) not in _NOT_THERE
    )
    return cause if disguised and isinstance(cause, Exception) else error


def within(seconds: float, request: Callable[[], Result]) -> Result:
    """Call something that may hang.

    Raises:
        TimeoutError: it has not come back by then.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(request())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    if results:
        return results[0]
    if errors:
        raise errors[0]
    raise TimeoutError(f"no whole answer within {seconds:g} s")


def connect(url: str) -> tuple[Any, str]:
    """The file system of a URL (fsspec's) with our time limits, and the path in it.

    Raises:
        InputError: nothing that is installed knows such URLs.
    """
    protocols = {split_protocol(part)[0] for part in url.split("::")}
    try:
        options = {name: own for name in protocols if name and (own := _options(name))}
        system, path = url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"{redact(url)}: cannot be opened: {redact(str(error))}; for s3:// install "
            "lexmill[s3], for other stores the library that fsspec names"
        ) from None
    if "s3" in protocols or "s3a" in protocols:
        # One request, one attempt: a write that was given up here must not be made there again,
        # when what it wrote has long been written and removed.
        system.retries = 1
    return system, path


def _forget(url: str) -> None:
    """Connections that hang are few, and kept for long: the next attempt has new ones."""
    system, _ = connect(url)
    type(system).clear_instance_cache()


def _options(protocol: str) -> dict[str, Any]:
    """Time limits of a store's own library, beneath what the user configured for fsspec."""
    match protocol:
        case "s3" | "s3a":
            limits = {
                "connect_timeout": CONNECT_LIMIT,
                "read_timeout": SILENCE_LIMIT,
                "retries": {"total_max_attempts": 1},
            }
            return {"config_kwargs": limits | _configured(protocol, "config_kwargs")}
        case "http" | "https":
            import aiohttp

            timeout = aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_LIMIT, sock_read=SILENCE_LIMIT
            )
            return {"client_kwargs": {"timeout": timeout} | _configured(protocol, "client_kwargs")}
        case _:
            return {}


def _configured(protocol: str, key: str) -> dict[str, Any]:
    return dict(fsspec.config.conf.get(protocol, {}).get(key, {}))


# -- reading -------------------------------------------------------------------------------------


def open_url(url: str) -> BinaryIO:
    """Open a URL for reading, with random access.

    A server that does not give parts of a file has it fetched once into a temporary file.

    Raises:
        InputError: there is no way to reach it, or no answer.
        OSError: there is no such file, or it may not be read.
    """
    size = ask("look at", url, lambda: _system_info(url)).get("size")
    if size is None:
        return _fetched(url)
    return io.BufferedReader(_RemoteFile(url, int(size)), BLOCK_BYTES)


def _system_info(url: str) -> Any:
    system, path = connect(url)
    return system.info(path)


class _RemoteFile(io.RawIOBase):
    """Reads block by block, each of them one request."""

    def __init__(self, url: str, size: int) -> None:
        self._url, self._size = url, size
        self._position = 0
        self._file: Any = None
        self._whole: BinaryIO | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        start = self._position
        count = max(0, min(len(buffer), BLOCK_BYTES, self._size - start))
        if count:
            data = self._block(start, count)
            buffer[:count] = data
            self._position += count
        return count

    def close(self) -> None:
        if self._whole is not None:
            self._whole.close()
        self._file = None
        super().close()

    def _block(self, start: int, count: int) -> bytes:
        if self._whole is None:
            try:
                return ask("read", self._url, lambda: self._request(start, count))
            except ValueError as error:
                if isinstance(error, InputError) or "range" not in str(error):
                    raise
            self._whole = _fetched(self._url)
        self._whole.seek(start)
        return self._whole.read(count)

    def _request(self, start: int, count: int) -> bytes:
        # A handle that failed, or hangs in a thread that was given up, is never used again.
        file, self._file = self._file, None
        if file is None:
            system, path = connect(self._url)
            file = system.open(path, "rb", block_size=BLOCK_BYTES, cache_type="none")
        file.seek(start)
        data: bytes = file.read(count)
        if len(data) != count:
            raise OSError(f"{len(data)} bytes came instead of {count} from {start} on")
        self._file = file
        return data


def _fetched(url: str) -> BinaryIO:
    """The whole file, in a temporary one that is gone once it is closed."""

    def fetch() -> BinaryIO:
        system, path = connect(url)
        began = time.monotonic()
        with contextlib.ExitStack() as on_failure:
            spool = on_failure.enter_context(tempfile.TemporaryFile())
            stream = within(LIMIT, lambda: system.open(path, "rb", block_size=0))
            while block := within(LIMIT, lambda: stream.read(BLOCK_BYTES)):
                spool.write(block)
                if time.monotonic() - began > LIMIT * (1 + spool.tell() / BLOCK_BYTES):
                    raise TimeoutError(f"{spool.tell()} bytes came in {LIMIT:g} s and more")
            spool.seek(0)
            on_failure.pop_all()
        return spool

    return ask("fetch", url, fetch, limit=threading.TIMEOUT_MAX)
