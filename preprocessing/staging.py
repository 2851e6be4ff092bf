"""Shards that lie far away, copied whole to a local disk before they are read.

    target/<digest of the address and the manifest>/      the directory's own layout, manifest last

All processes of a host may ask for it at once: one copies, the others wait and find it there. What
a killed copy left is completed; a shard counts once its bytes have the manifest's checksum.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from preprocessing.places import RemotePath
from preprocessing.space import format_bytes
from preprocessing.storage import (
    MANIFEST,
    InputError,
    Manifest,
    atomic_write,
    file_digest,
    manifest_digest,
    remove_temporaries,
)

_PIECE = 16 * 2**20


def stage_shards(directory: RemotePath, target: Path) -> Path:
    """Copy the shards of a finished stage, as far as they are not there yet.

    Returns:
        The copy, as good as the original.

    Raises:
        InputError: nothing finished lies there, what arrives has another checksum, or the disk
            has no room.
        UnreachableError: the network failed for good.
    """
    name = hashlib.blake2b(
        f"{directory}\n{manifest_digest(directory)}".encode(), digest_size=8
    ).hexdigest()
    copy = target / f"{directory.name}-{name}"
    copy.mkdir(parents=True, exist_ok=True)
    with _alone(copy):
        if (copy / MANIFEST).exists():
            return copy
        remove_temporaries(copy)
        manifest = Manifest.read(directory)
        wanted = [
            shard for shard in manifest.shards if not _is_whole(copy / shard.name, shard.checksum)
        ]
        needed, free = sum(shard.size for shard in wanted), shutil.disk_usage(copy).free
        if needed > free:
            raise InputError(
                f"{copy}: a copy of {directory} takes {format_bytes(needed)}, and "
                f"{format_bytes(free)} are free; free some, or read block by block "
                "(train.far_data.stage=false)"
            )
        for shard in wanted:
            path = copy / shard.name
            with atomic_write(path) as file:
                for begin in range(0, shard.size, _PIECE):
                    end = min(begin + _PIECE, shard.size)
                    file.write((directory / shard.name).read_range(begin, end))
                if file.checksum != shard.checksum:
                    raise InputError(
                        f"{directory / shard.name}: wrong checksum: its bytes are not the ones the "
                        "manifest records; run the stage again"
                    )
        with atomic_write(copy / MANIFEST) as file:
            file.write((directory / MANIFEST).read_bytes())
    return copy


def _is_whole(path: Path, checksum: str) -> bool:
    return path.is_file() and file_digest(path) == checksum


@contextmanager
def _alone(copy: Path) -> Iterator[None]:
    """Wait until no other process copies there; the lock ends with its holder."""
    with open(copy / ".staging", "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
