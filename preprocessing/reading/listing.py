"""Which raw files a configuration means.

A path or URL is a file, a directory or a glob. Of a directory every file below it is read, links
followed; of a glob (``*``, ``?``, ``[a-z]``, ``**``) every file it matches. Both pass over what
nobody means by them: names that begin with a dot, editors' backups (``a.txt~``, ``#a.txt#``), the
empty ``_SUCCESS`` of cluster jobs, and second names of a file (links); what has been passed over is
listed, and whoever names it alone has it read. A name that exists is taken as it is, whatever
characters it has.
"""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from preprocessing.reading.sources import Source, is_url, shown
from preprocessing.redaction import redact
from preprocessing.remote import ask, connect
from preprocessing.storage import InputError

_PASSED_OVER = re.compile(r"\..*|.*~|#.*#|_SUCCESS", re.DOTALL)
_GLOB = re.compile(r"[*?\[]")
_MARKS = ("ETag", "etag", "checksum", "md5Hash", "crc32c", "blob_id", "LastModified", "mtime")


@dataclass(frozen=True)
class Listing:
    """The files, sorted by URL, each once; and what lies among them but is not read."""

    sources: tuple[Source, ...]
    passed_over: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    source: Source
    inode: tuple[int, int] | None = None


def list_sources(patterns: Sequence[str]) -> Listing:
    """The files that paths, URLs, directories and globs stand for.

    Raises:
        InputError: a pattern without a file, a link that leads nowhere, a pipe or device, a file
            that may not be read, a protocol that is unknown or whose package is not installed.
    """
    found: dict[str, _Found] = {}
    passed_over: set[str] = set()
    for pattern in patterns:
        if not pattern:
            raise InputError("an input is empty; name a file, a directory, a glob or a URL")
        try:
            files = _far(pattern) if is_url(pattern) and not _is_local(pattern) else _near(pattern)
            for file in files:
                if isinstance(file, str):
                    passed_over.add(file)
                else:
                    found[file.source.url] = file
        except OSError as error:
            name = error.filename if isinstance(error.filename, str) else pattern
            reason = error.strerror or redact(str(error))
            raise InputError(f"{shown(name)}: cannot be read: {reason}") from error
    seen: set[tuple[int, int]] = set()
    sources = []
    for url in sorted(found):
        inode = found[url].inode
        if inode is not None and inode in seen:
            passed_over.add(url)
            continue
        if inode is not None:
            seen.add(inode)
        sources.append(found[url].source)
    passed_over -= {source.url for source in sources}
    return Listing(tuple(sources), tuple(sorted(map(shown, passed_over))))


def _is_local(pattern: str) -> bool:
    return pattern.startswith(("file://", "local://")) and "::" not in pattern


# -- this machine --------------------------------------------------------------------------------


def _near(pattern: str) -> Iterator[_Found | str]:
    if _is_local(pattern) and not os.path.lexists(pattern):
        pattern = pattern.partition("://")[2]
    if not os.path.lexists(pattern):
        pattern = os.path.expanduser(pattern)
    path = os.path.abspath(pattern)
    if os.path.isdir(path):
        files = list(_below(path, set()))
        if all(isinstance(file, str) for file in files):
            raise InputError(f"{shown(path)}: no file in this directory")
        yield from files
    elif os.path.lexists(path):
        yield _local_file(path)
    else:
        yield from _globbed(pattern)


def _globbed(pattern: str) -> Iterator[_Found | str]:
    any_file = False
    if _GLOB.search(pattern):
        for name in sorted(glob.glob(pattern, recursive=True, include_hidden=True)):
            path = os.path.abspath(name)
            if os.path.isdir(path) and "**" in pattern:
                continue  # on the way to what is in it
            if os.path.isdir(path) or _passed_over(name, pattern):
                yield path
            else:
                any_file = True
                yield _local_file(path)
    if not any_file:
        raise InputError(
            f"{shown(pattern)}: no such file; check the path (a directory or a glob is "
            "understood: *, ?, [a-z], **)"
        )


def _below(directory: str, above: set[tuple[int, int]]) -> Iterator[_Found | str]:
    """The files of a directory, those of its directories included; cycles of links end."""
    status = os.stat(directory)
    here = (status.st_dev, status.st_ino)
    if here in above:
        yield directory
        return
    for name in sorted(os.listdir(directory)):
        path = os.path.join(directory, name)
        if _PASSED_OVER.fullmatch(name):
            yield path
        elif os.path.isdir(path):
            yield from _below(path, above | {here})
        else:
            yield _local_file(path)


def _local_file(path: str) -> _Found:
    if not os.path.exists(path) and os.path.islink(path):
        raise InputError(
            f"{shown(path)}: cannot be read: the link leads to no file; mend or remove it"
        )
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise InputError(
            f"{shown(path)}: cannot be read: a pipe, socket or device, not a regular file; "
            "copy what it gives into one"
        )
    with open(path, "rb"):  # what may not be read is found now and not after an hour
        return _Found(Source(path, status.st_size), (status.st_dev, status.st_ino))


def _passed_over(name: str, pattern: str) -> bool:
    """Whether what the glob left open holds a name that nobody means; ``.*`` does mean them."""
    asked = pattern.split("/")
    if any(part[:1] == "." and _GLOB.search(part) for part in asked):
        return False
    return any(_PASSED_OVER.fullmatch(part) for part in name.split("/") if part not in asked)


# -- elsewhere -----------------------------------------------------------------------------------


def _far(pattern: str) -> Iterator[_Found | str]:
    system, path = connect(pattern)
    chained = "::" in pattern
    # First of all, since to ask a web server for a directory is to read the whole page.
    if ask("look at", pattern, lambda: system.isfile(path)):
        info = ask("look at", pattern, lambda: system.info(path))
        yield _Found(replace(_source(system, path, info), url=pattern))
        return
    is_glob = _GLOB.search(path) is not None
    if chained:
        raise InputError(
            f"{shown(pattern)}: no such file (a chained URL names one file: no glob, no directory)"
        )
    listed: Mapping[str, Any] = ask(
        "list",
        pattern,
        lambda: system.glob(path, detail=True) if is_glob else system.find(path, detail=True),
    )
    root = path.rstrip("/") + "/"
    any_file = False
    for name, info in listed.items():
        below = name.removeprefix(root) if not is_glob else name.rpartition("/")[2]
        if info["type"] == "directory" or name.endswith("/"):
            if is_glob and "**" not in path:
                yield system.unstrip_protocol(name)
        elif any(_PASSED_OVER.fullmatch(part) for part in below.split("/")):
            yield system.unstrip_protocol(name)
        else:
            any_file = True
            yield _Found(_source(system, name, info))
    if not any_file:
        raise InputError(
            f"{shown(pattern)}: no such file; check the address (a directory or a glob is "
            "understood: *, ?, [a-z], **)"
        )


def _source(system: Any, path: str, info: Mapping[str, Any]) -> Source:
    size = info.get("size")
    if size is None:
        raise InputError(f"{shown(path)}: its size is not known; copy it to where it has one")
    mark = next((str(info[key]) for key in _MARKS if info.get(key) is not None), None)
    return Source(system.unstrip_protocol(path), int(size), mark)
