"""Files that are whole or absent: atomic writes, Arrow shards, completion records, manifests.

Everything a stage leaves behind goes through :func:`atomic_write`: bytes go to a temporary name,
are flushed to the disk, and only then take the real name; object stores are given whole objects
(:mod:`preprocessing.places`). A shard counts once it stands in the
manifest; until then the *records* of finished tasks lie beside it, so that a restarted stage does
again only what had not been finished.

    stage directory/
      manifest.json             written last; holds no time and no host name
      train/part-00000.arrow    Arrow IPC file, uncompressed, fixed rows a record batch
      .records/task-00000.json  what a finished task made; gone once the manifest stands
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from configs.schema import digest
from preprocessing.errors import InputError as InputError
from preprocessing.errors import is_disk_full
from preprocessing.places import RemotePath

MANIFEST = "manifest.json"
LOCK = ".lock"
"""What a writer holds while it works, in the directory it works on."""
MANIFEST_VERSION = 2
_TEMPORARY = ".writing"


# -- whole or absent -----------------------------------------------------------------------------


class HashingFile:
    """A write-only binary file that digests and counts what passes through it."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._hash = hashlib.blake2b(digest_size=16)
        self.num_bytes = 0
        self.closed = False

    def write(self, data: Any) -> int:
        """Write all of ``data`` (any bytes-like object)."""
        view = memoryview(data).cast("B")
        write_all(self._raw, view)
        self._hash.update(view)
        self.num_bytes += len(view)
        return len(view)

    def tell(self) -> int:
        """Bytes written so far."""
        return self.num_bytes

    def flush(self) -> None:
        """Nothing is buffered here."""

    def close(self) -> None:
        """The file itself is closed by :func:`atomic_write`."""
        self.closed = True

    @property
    def checksum(self) -> str:
        """Digest of everything written so far."""
        return self._hash.hexdigest()


def write_all(file: BinaryIO, view: memoryview) -> None:
    """Write to an unbuffered file until nothing is left."""
    while view:
        view = view[file.write(view) :]


def synchronize(descriptor: int) -> None:
    """Force a file's or a directory's bytes to the disk."""
    os.fsync(descriptor)


def rename(source: Path, target: Path) -> None:
    """Give a finished file or directory its name, and make the name last."""
    os.replace(source, target)
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        synchronize(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[HashingFile]:
    """A file that appears under its name whole, or not at all.

    What goes to an object store is written to the folder for temporary files before.

    Raises:
        InputError: the disk is full.
    """
    far = isinstance(path, RemotePath)
    folder = Path(tempfile.gettempdir()) if far else path.parent
    temporary = folder / f".{path.name}.{uuid.uuid4().hex[:8]}{_TEMPORARY}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb", buffering=0) as raw:
            if far:
                temporary.unlink()  # it lives as long as it is open, however this process ends
            file = HashingFile(raw)
            yield file
            if isinstance(path, RemotePath):
                path.upload(Path(f"/proc/self/fd/{raw.fileno()}"))
            else:
                synchronize(raw.fileno())
        if not far:
            rename(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if is_disk_full(error):
            raise InputError(
                f"{folder}: the disk is full; free some space and start again: "
                "what is finished is kept"
            ) from error
        raise


def write_text(path: Path, text: str) -> None:
    """A text file, whole or absent."""
    with atomic_write(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """A JSON file, whole or absent; the same value always gives the same bytes."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def file_digest(path: Path) -> str:
    """Digest of a file's bytes, as shards and manifests record it."""
    state = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            state.update(block)
    return state.hexdigest()


def remove_temporaries(directory: Path) -> None:
    """Clear away what an interrupted writer left under temporary names."""
    for path in directory.rglob(f".*{_TEMPORARY}"):
        remove_tree(path) if path.is_dir() else path.unlink(missing_ok=True)


def remove_tree(directory: Path) -> None:
    """Remove a directory with all that is in it; one that is not there is no error."""
    if isinstance(directory, RemotePath):
        directory.remove_tree()
    else:
        shutil.rmtree(directory, ignore_errors=True)


# -- shards ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shard:
    """One Arrow file as the manifest lists it.

    Attributes:
        name: path below the stage's directory, ``<split>/part-00000.arrow``.
        rows: number of Arrow rows.
        size: bytes of the file.
        checksum: BLAKE2b-128 of the file.
        counts: whatever else is summed up (``tokens``, ``characters``, ...).
        source: the named source of the corpus that its documents come from, where there is one.
    """

    name: str
    rows: int
    size: int
    checksum: str
    counts: Mapping[str, int] = field(default_factory=dict)
    source: str | None = None

    @property
    def split(self) -> str:
        """``train`` or the name of a validation set."""
        return self.name.rpartition("/")[0]

    @property
    def number(self) -> int:
        """Which one of its split, as :func:`shard_name` was given it."""
        return int(self.name.rpartition("-")[2].partition(".")[0])


def shard_name(split: str, number: int) -> str:
    """``part-00000.arrow`` of a split."""
    return f"{split}/part-{number:05d}.arrow"


class ShardWriter:
    """Writes one Arrow file with a fixed number of rows in every record batch but the last."""

    def __init__(self, file: HashingFile, schema: pa.Schema, rows_per_batch: int) -> None:
        self._file = file
        self._schema = schema
        self._rows_per_batch = rows_per_batch
        self._writer = pa.ipc.new_file(file, schema)
        self._pending: list[pa.RecordBatch] = []
        self._num_pending = 0
        self.rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows; they are written as soon as they fill a record batch."""
        self._pending.append(batch)
        self._num_pending += batch.num_rows
        if self._num_pending >= self._rows_per_batch:
            self._drain(final=False)

    def end_batch(self) -> None:
        """Write the rows so far as a record batch, however few they are."""
        self._drain(final=True)

    def finish(self, name: str, counts: Mapping[str, int], source: str | None = None) -> Shard:
        """Write what is left and describe the file."""
        self._drain(final=True)
        self._writer.close()
        size, checksum = self._file.num_bytes, self._file.checksum
        return Shard(name, self.rows, size, checksum, dict(counts), source)

    def _drain(self, *, final: bool) -> None:
        table = pa.Table.from_batches(self._pending, schema=self._schema).combine_chunks()
        start = 0
        while table.num_rows - start >= (1 if final else self._rows_per_batch):
            part = table.slice(start, self._rows_per_batch)
            self._writer.write_table(part, max_chunksize=self._rows_per_batch)
            start += part.num_rows
        self.rows += start
        rest = table.slice(start)
        self._pending = rest.to_batches() if rest.num_rows else []
        self._num_pending = rest.num_rows


@contextlib.contextmanager
def write_shard(path: Path, schema: pa.Schema, rows_per_batch: int) -> Iterator[ShardWriter]:
    """A shard that appears whole or not at all; call ``finish`` before leaving."""
    with atomic_write(path) as file:
        yield ShardWriter(file, schema, rows_per_batch)


def open_shard(path: Path) -> pa.ipc.RecordBatchFileReader:
    """Memory-map a shard for reading; one far away is read block by block.

    Raises:
        InputError: missing or damaged file.
    """
    try:
        if isinstance(path, RemotePath):
            return pa.ipc.open_file(path.open("rb"))
        return pa.ipc.open_file(pa.memory_map(str(path)))
    except FileNotFoundError:
        raise InputError(
            f"{path}: this shard stands in the manifest but is missing; run the stage again"
        ) from None
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"{path}: not a whole Arrow file ({error}); delete it and run the stage again"
        ) from None


# -- manifests -------------------------------------------------------------------------------------


_ANEW = "remove this directory and run the stage again"


@dataclass(frozen=True)
class Manifest:
    """What a stage made, of what, and how. Equal inputs and configuration give equal bytes."""

    stage: str
    configuration: Any
    inputs: Mapping[str, str]
    shards: tuple[Shard, ...]
    rejects: Mapping[str, int] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def totals(self, split: str | None = None) -> dict[str, int]:
        """Sums over the shards of one split, or of all."""
        sums: dict[str, int] = {"shards": 0, "rows": 0, "bytes": 0}
        for shard in self.shards:
            if split is None or shard.split == split:
                sums["shards"] += 1
                sums["rows"] += shard.rows
                sums["bytes"] += shard.size
                for name, count in shard.counts.items():
                    sums[name] = sums.get(name, 0) + count
        return sums

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, in order of first appearance."""
        return tuple(dict.fromkeys(shard.split for shard in self.shards))

    def of(self, split: str) -> tuple[Shard, ...]:
        """The shards of one split, in order."""
        return tuple(shard for shard in self.shards if shard.split == split)

    def write(self, directory: Path) -> None:
        """Write ``manifest.json``."""
        plain = {
            "version": MANIFEST_VERSION,
            "tool_version": metadata.version("lexmill"),
            "stage": self.stage,
            "configuration": self.configuration,
            "configuration_digest": digest(self.configuration),
            "inputs": dict(self.inputs),
            "shards": [dataclasses.asdict(shard) for shard in self.shards],
            "totals": {split: self.totals(split) for split in self.splits},
            "rejects": dict(self.rejects),
            "tables": {name: dict(table) for name, table in self.tables.items()},
            "facts": dict(self.facts),
        }
        write_json(directory / MANIFEST, plain)

    @staticmethod
    def read(directory: Path) -> Manifest:
        """Read ``manifest.json``.

        Raises:
            InputError: missing, damaged, or of a version this program does not know.
        """
        path = directory / MANIFEST
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(
                f"{directory}: there is no finished data here ({MANIFEST} is missing); "
                "run the stage that makes it"
            ) from None
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read: {error}; {_ANEW}") from None
        version = plain.get("version") if isinstance(plain, dict) else None
        if version not in (MANIFEST_VERSION, MANIFEST_VERSION - 1):
            raise InputError(
                f"{path}: manifest version {version}; this lexmill reads versions "
                f"{MANIFEST_VERSION - 1} and {MANIFEST_VERSION}; {_ANEW}"
            )
        try:
            return Manifest(
                stage=plain["stage"],
                configuration=plain["configuration"],
                inputs=plain["inputs"],
                shards=tuple(Shard(**shard) for shard in plain["shards"]),
                rejects=plain["rejects"],
                tables=plain["tables"] if version > 1 else {},
                facts=plain["facts"],
            )
        except (KeyError, TypeError) as error:
            raise InputError(f"{path}: not a manifest of ours ({error}); {_ANEW}") from None


def manifest_digest(directory: Path) -> str:
    """Digest of ``manifest.json``: what a stage says of the output of an earlier one.

    Raises:
        InputError: there is no whole output there.
    """
    Manifest.read(directory)
    return file_digest(directory / MANIFEST)


def verify_shards(directory: Path, shards: Sequence[Shard]) -> None:
    """Compare every shard with its checksum.

    Raises:
        InputError: a shard is missing or its bytes are not the ones that were written.
    """
    for shard in shards:
        path = directory / shard.name
        if not path.exists():
            open_shard(path)
        if path.stat().st_size != shard.size or file_digest(path) != shard.checksum:
            raise InputError(
                f"{path}: wrong checksum: its bytes are not the ones the manifest records; "
                "delete it and run the stage again"
            )
