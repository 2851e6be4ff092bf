"""Blocks of far-away files on a local disk: read once over the network, never more than so many.

    directory/<digest of the file's address and checksum>/00000017      the 18th block of a file

Processes share a cache: a block appears whole under its name, and whoever finds too much there
removes what was used longest ago. A block that goes while another process reads it is fetched anew.
Whatever else lies in the directory is not counted and stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path

from preprocessing.places import RemotePath
from preprocessing.storage import Shard

BLOCK_BYTES = 4 * 2**20
_LOOKS_A_FILLING = 16  # how often the disk is looked at while as much is fetched as it may hold
_OURS = re.compile(r"[0-9a-f]{32}/(\d{8}|\.\d{8}\.\d+)")
_unseen: dict[Path, int] = {}
"""Bytes that this process has put into a cache since it last looked how much lies there."""


@dataclass(frozen=True)
class BlockCache:
    """A folder for blocks.

    Attributes:
        directory: on a local disk.
        max_bytes: of all blocks; for moments each process may have one more, and a sixteenth.
    """

    directory: Path
    max_bytes: int

    def open(self, path: RemotePath, shard: Shard) -> CachedFile:
        """A shard as a file, for reading."""
        return CachedFile(self, path, shard)


class CachedFile(io.RawIOBase):
    """A far-away file behind a :class:`BlockCache`; what is asked of it is read block by block."""

    def __init__(self, cache: BlockCache, path: RemotePath, shard: Shard) -> None:
        super().__init__()
        self._cache, self._path, self._size = cache, path, shard.size
        name = hashlib.blake2b(f"{path}\n{shard.checksum}".encode(), digest_size=16).hexdigest()
        self._folder = cache.directory / name
        self._place = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def size(self) -> int:
        """Bytes of the file."""
        return self._size

    def tell(self) -> int:
        """The place of the next byte."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = base + offset
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes: as many as asked for, or all there are."""
        rest = max(0, self._size - self._place)
        wanted = rest if size is None or size < 0 else min(size, rest)
        parts = []
        while wanted:
            number, within = divmod(self._place, BLOCK_BYTES)
            part = self._block(number)[within : within + wanted]
            parts.append(part)
            self._place += len(part)
            wanted -= len(part)
        return b"".join(parts)

    def _block(self, number: int) -> bytes:
        own = self._folder / f"{number:08d}"
        begin = number * BLOCK_BYTES
        expected = min(BLOCK_BYTES, self._size - begin)
        with contextlib.suppress(FileNotFoundError):
            block = own.read_bytes()
            if len(block) == expected:
                os.utime(own)
                return block
        block = self._path.read_range(begin, begin + expected)
        directory, most = self._cache.directory, self._cache.max_bytes
        if _unseen.get(directory, most) * _LOOKS_A_FILLING >= most:
            make_room(directory, most - expected)
            _unseen[directory] = 0
        _unseen[directory] += expected
        own.parent.mkdir(parents=True, exist_ok=True)
        writing = own.with_name(f".{own.name}.{os.getpid()}")
        writing.write_bytes(block)
        with contextlib.suppress(FileNotFoundError):  # another process found too much here
            writing.replace(own)
        return block


def make_room(directory: Path, max_bytes: int) -> None:
    """Remove the blocks used longest ago until the others have at most ``max_bytes``."""
    found = []
    for path in directory.glob("*/*"):
        if _OURS.fullmatch(path.relative_to(directory).as_posix()):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
    excess = sum(size for _, size, _ in found) - max_bytes
    for _, size, path in sorted(found):
        if excess <= 0:
            return
        path.unlink(missing_ok=True)
        excess -= size
