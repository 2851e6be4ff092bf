"""One writer a directory, or several slices of one plan.

On a file system the lock is the kernel's, and dies with its process. In an object store there is
none: writers leave *markers* that they keep fresh, and one that finds somebody else's live marker
takes its own away and refuses. Two that come at the same moment may both refuse; never do both
write.

    .lock                                        flock: shared by slices, exclusive otherwise
    .lock/<owner>.json                           in an object store: {"host", "pid", "shared", ...}
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from preprocessing.errors import InputError
from preprocessing.places import RemotePath
from preprocessing.storage import LOCK

Result = TypeVar("Result")

PATIENCE = 60.0
"""Seconds that a slice waits for another one that prepares the directory."""
POLL = 0.1
"""Seconds that a slice waits at most before it tries again; doubled each time."""
BEAT = 20.0
"""Seconds between two signs of life of a marker."""
STALE = 6 * BEAT
"""Without one for so long its writer is taken for dead."""


class BusyError(InputError):
    """Somebody else is writing there."""


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold a directory against every other writer.

    Raises:
        BusyError: there is one.
    """
    with _hold(directory, together=False):
        yield


@contextlib.contextmanager
def shared(directory: Path) -> Iterator[None]:
    """Hold a directory together with other slices, against whoever wants it for itself.

    Raises:
        BusyError: somebody has it for himself.
    """
    with _hold(directory, together=True):
        yield


def patiently(attempt: Callable[[], Result]) -> Result:
    """Repeat what finds somebody else there, for a minute.

    Those that came at the same moment, and so refused each other, part by the luck of their
    pauses.

    Raises:
        BusyError: of the last attempt.
    """
    deadline = time.monotonic() + PATIENCE
    pause = POLL
    while True:
        try:
            return attempt()
        except BusyError:
            if time.monotonic() > deadline:
                raise
        time.sleep(random.uniform(0.0, pause))
        pause = min(2 * pause, PATIENCE / 8)


def _hold(directory: Path, *, together: bool) -> contextlib.AbstractContextManager[None]:
    if isinstance(directory, RemotePath):
        return _marked(directory, together=together)
    return _locked(directory, together=together)


def _busy(directory: Path, who: str) -> BusyError:
    return BusyError(f"{directory}: another process is writing here{who}; wait for it or stop it")


@contextlib.contextmanager
def _locked(directory: Path, *, together: bool) -> Iterator[None]:
    how = (fcntl.LOCK_SH if together else fcntl.LOCK_EX) | fcntl.LOCK_NB
    while True:
        with contextlib.closing(_open_lock(directory)) as lock:
            try:
                fcntl.flock(lock, how)
            except BlockingIOError:
                raise _busy(directory, "") from None
            if _is_called(directory / LOCK, lock):
                yield
                return


def _open_lock(directory: Path) -> BinaryIO:
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        # Open for both: NFS makes locks of byte ranges, and those need the fitting right.
        with contextlib.suppress(FileNotFoundError):  # the directory has just been removed
            return open(directory / LOCK, "a+b")


def _is_called(path: Path, file: BinaryIO) -> bool:
    """Whether a file has its name still; whoever removed it holds a lock that nobody else sees."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _marked(directory: RemotePath, *, together: bool) -> Iterator[None]:
    own = directory / LOCK / f"{uuid.uuid4().hex}.json"
    marker = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "processes": _process_table(),
        "shared": together,
    }
    _show(own, marker)
    stop = threading.Event()
    beating = threading.Thread(target=_beat, args=(own, marker, stop), daemon=True)
    try:
        for path in (directory / LOCK).iterdir():
            if path == own:
                continue
            other = _read(path)
            if other is None or _is_dead(other):
                path.unlink(missing_ok=True)
            elif not (together and other["shared"]):
                raise _busy(directory, f" (process {other['pid']} on {other['host']})")
        beating.start()
        yield
    finally:
        stop.set()
        if beating.ident is not None:
            beating.join()
        own.unlink(missing_ok=True)


def _beat(own: Path, marker: dict[str, Any], stop: threading.Event) -> None:
    while not stop.wait(BEAT):
        with contextlib.suppress(InputError, OSError):  # the next one may arrive
            _show(own, marker)


def _show(own: Path, marker: dict[str, Any]) -> None:
    own.write_bytes(json.dumps({**marker, "alive_at": time.time()}).encode())


def _read(path: Path) -> dict[str, Any] | None:
    try:
        marker = json.loads(path.read_text())
        return marker if {"host", "pid", "shared", "alive_at"} <= set(marker) else None
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _is_dead(marker: dict[str, Any]) -> bool:
    if time.time() - marker["alive_at"] > STALE:
        return True
    if marker.get("processes") is None or marker["processes"] != _process_table():
        return False
    try:
        os.kill(marker["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


@functools.cache
def _process_table() -> str | None:
    """Where a process number means one process: containers of one host name may differ in it.

    None where the system does not tell.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None
