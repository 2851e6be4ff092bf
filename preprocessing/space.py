"""Room on the disk: a forecast before work starts."""

from __future__ import annotations

import shutil
from pathlib import Path

from preprocessing.errors import InputError
from preprocessing.places import RemotePath


def check_space(directory: Path, what: str, expected: int) -> None:
    """Refuse work whose output will not find room; of stores far away nothing is known.

    Raises:
        InputError: less is free than is expected to be written.
    """
    if isinstance(directory, RemotePath):
        return
    free = shutil.disk_usage(directory).free
    if expected > free:
        raise InputError(
            f"{directory}: '{what}' is expected to write {format_bytes(expected)}, and "
            f"{format_bytes(free)} are free; free some space, give corpus.directory another "
            "place, or try all the same: corpus.check_disk=false"
        )


def format_bytes(count: int) -> str:
    """A number of bytes for a person: ``3.2 GB``."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
