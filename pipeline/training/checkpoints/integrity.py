"""The files of a checkpoint, as its record knows them: each with its size and digest."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from preprocessing.storage import file_digest, synchronize


@dataclass(frozen=True)
class FileRecord:
    """A file's bytes: how many, and their BLAKE2b-128."""

    size: int
    digest: str


def list_files(directory: Path) -> list[str]:
    """Every file below a directory by its name from there, the largest first.

    Dealt out in this order, ranks get about equally much to read.
    """
    files = [path for path in directory.rglob("*") if path.is_file()]
    files.sort(key=lambda path: (-path.stat().st_size, path))
    return [path.relative_to(directory).as_posix() for path in files]


def seal(directory: Path, names: Iterable[str]) -> dict[str, FileRecord]:
    """Force files to the disk and record them."""
    records = {}
    for name in names:
        path = directory / name
        force(path)
        records[name] = FileRecord(path.stat().st_size, file_digest(path))
    return records


def force(path: Path) -> None:
    """Force a file or a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        synchronize(descriptor)
    finally:
        os.close(descriptor)


def find_damage(
    directory: Path, files: Mapping[str, FileRecord], names: Iterable[str]
) -> str | None:
    """Compare files with their records; the first that differs is named."""
    for name in names:
        path, record = directory / name, files[name]
        if not path.is_file():
            return f"{path}: missing, though it was saved"
        if (size := path.stat().st_size) != record.size:
            return f"{path}: damaged: {size:,} bytes of the {record.size:,} that were saved"
        if file_digest(path) != record.digest:
            return f"{path}: damaged: wrong checksum: its bytes are not the ones that were saved"
    return None
