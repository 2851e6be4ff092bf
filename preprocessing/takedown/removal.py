"""Rewriting one stage's directory without some documents: all of it, or nothing.

What changes is prepared in ``.takedown/`` below the directory, the new manifest last. From then on
the change only rolls forward: files take their places, the manifest does, and the folder goes. A
run that was cut off before throws the folder away, one that was cut off after finishes.

Downstream directories record the digest of the manifest they were made from. The *journal* notes
which digest became which, so that they count as up to date if, and only if, they did before.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from preprocessing.documents import (
    ROWS_PER_BATCH,
    DocumentWriter,
    Rejected,
    log_name,
    read_batches,
)
from preprocessing.places import RemotePath
from preprocessing.storage import (
    MANIFEST,
    InputError,
    Manifest,
    Shard,
    atomic_write,
    file_digest,
    remove_tree,
    rename,
    write_json,
    write_shard,
)
from preprocessing.takedown.ledger import Entry
from preprocessing.takedown.search import Place

STAGED = ".takedown"


@dataclass
class Journal:
    """What an unfinished takedown has changed so far.

    Attributes:
        entries: of the ledger that it adds.
        ledger: digest of the ledger before, None where there was none.
        signed: digest of the manifest whose documents the signatures are of, as it was before.
        rows: rows of these documents that go, ascending, by the number of their shard.
        digests: of manifests, old to new.
        thinned: old digests of the manifests whose documents have become fewer.
    """

    entries: list[Entry]
    ledger: str | None
    signed: str | None
    rows: dict[int, list[int]]
    digests: dict[str, str] = field(default_factory=dict)
    thinned: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Keep it."""
        write_json(path, asdict(self))

    @staticmethod
    def read(path: Path) -> Journal | None:
        """The journal of a takedown that was cut off, if there is one."""
        if not path.exists():
            return None
        plain = json.loads(path.read_text(encoding="utf-8"))
        plain["entries"] = [Entry(**one) for one in plain["entries"]]
        plain["rows"] = {int(shard): rows for shard, rows in plain["rows"].items()}
        return Journal(**plain)


Prepare = Callable[[Path, Manifest], Manifest]
Count = Callable[[pa.RecordBatch], Mapping[str, int]]


def settle(directory: Path) -> None:
    """Finish the change of a directory that was cut off, or throw it away."""
    staged = directory / STAGED
    if not staged.exists():
        return
    if (staged / MANIFEST).exists():
        for path in sorted(path for path in staged.rglob("*") if path.is_file()):
            if path != staged / MANIFEST:
                _move(path, directory / path.relative_to(staged))
        _move(staged / MANIFEST, directory / MANIFEST)
    remove_tree(staged)


def change(directory: Path, journal: Journal, path: Path, prepare: Prepare) -> int:
    """Change a directory by ``prepare(staging folder, manifest)``; how many shards were written.

    Args:
        directory: of a stage.
        journal: is written to ``path`` before the change counts.
        path: of the journal.
        prepare: stages files and returns the manifest as it is to be.
    """
    old = Manifest.read(directory)
    staged = directory / STAGED
    new = prepare(staged, old)
    if new == old:
        return 0
    digest = file_digest(directory / MANIFEST)
    draft = staged / "draft"
    new.write(draft)
    if not isinstance(draft, RemotePath):  # ingest compares it with the dates of raw files
        made_at = (directory / MANIFEST).stat().st_mtime_ns
        os.utime(draft / MANIFEST, ns=(made_at, made_at))
    journal.digests[digest] = file_digest(draft / MANIFEST)
    pairs = zip(new.shards, old.shards, strict=True)
    written = sum(one != before for one, before in pairs)
    if written:
        journal.thinned.append(digest)
    journal.write(path)
    _move(draft / MANIFEST, staged / MANIFEST)
    remove_tree(draft)
    settle(directory)
    return written


def _move(source: Path, target: Path) -> None:
    if isinstance(source, RemotePath):
        with source.open("rb") as file, atomic_write(target) as copy:
            while block := file.read(1 << 22):
                copy.write(block)
        source.unlink()
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        rename(source, target)


def chained(manifest: Manifest, journal: Journal) -> Manifest:
    """The manifest with the digests that its inputs have now."""
    digests = journal.digests
    return replace(
        manifest, inputs={name: digests.get(one, one) for name, one in manifest.inputs.items()}
    )


def without_documents(
    staged: Path,
    directory: Path,
    manifest: Manifest,
    ids: pa.Array,
    count: Count,
) -> tuple[Manifest, list[tuple[Shard, pa.RecordBatch]]]:
    """Stage the shards that hold some of the ids, without them.

    Returns:
        The manifest with the new shards, and the rows that go without their long columns, by the
        shard they were in.
    """
    shards, gone = [], []
    for shard in manifest.shards:
        if not len(rows_of(directory / shard.name, ids)):
            shards.append(shard)
            continue
        counts = dict(shard.counts)
        target = staged / shard.name
        columns = next(read_batches(directory / shard.name)).schema
        with write_shard(target, columns, ROWS_PER_BATCH) as writer:
            rows = DocumentWriter(writer) if "text" in columns.names else writer
            for batch in read_batches(directory / shard.name):
                goes = pc.is_in(batch.column("id"), value_set=ids)
                removed = batch.filter(goes)
                rows.write(batch.filter(pc.invert(goes)) if removed.num_rows else batch)
                if not removed.num_rows:
                    continue
                lost = count(removed)
                if unknown := sorted(set(counts) - set(lost)):
                    raise InputError(
                        f"{directory}: the manifest counts {', '.join(unknown)}, which this "
                        "version does not know; use the version that wrote it"
                    )
                counts = {name: number - lost[name] for name, number in counts.items()}
                gone.append((shard, _brief(removed)))
            shards.append(writer.finish(shard.name, counts, shard.source))
    return replace(manifest, shards=tuple(shards)), gone


def count_text(rows: pa.RecordBatch) -> dict[str, int]:
    """What document shards count."""
    return {"characters": pc.sum(pc.utf8_length(rows.column("text"))).as_py()}


def count_tokens(unknown_id: int | None) -> Count:
    """What token shards count: by the lists a row holds, and the unknown pieces.

    How many spans were dropped is what the stage met, and stays.
    """

    def count(rows: pa.RecordBatch) -> dict[str, int]:
        lists = {"tokens": "ids", "sentences": "sentence_lengths"}
        lists |= {name: name for name in rows.schema.names if name not in ("id", *lists.values())}
        counts = {name: len(rows.column(one).flatten()) for name, one in lists.items()}
        counts |= {f"{name}_dropped": 0 for name in lists}
        ids = rows.column("ids").flatten().to_numpy()
        return counts | {"unknown": int(np.count_nonzero(ids == unknown_id))}

    return count


def log_removed(
    staged: Path,
    directory: Path,
    gone: Iterable[tuple[Shard, pa.RecordBatch]],
    reasons: Mapping[str, str],
) -> None:
    """Stage the logs of the shards concerned, with what was taken down at their ends."""
    lines: dict[str, list[str]] = {}
    for shard, rows in gone:
        own = lines.setdefault(log_name(shard.split, shard.number), [])
        for row in rows.select(["id", "source", "offset"]).to_pylist():
            identity = row["id"].hex()
            place = row["source"], row["offset"]
            own.append(Rejected("taken_down", *place, reasons[identity], identity).line())
    for name, own in lines.items():
        path = directory / name
        before = path.read_bytes() if path.exists() else b""
        with atomic_write(staged / name) as file:
            file.write(before + "".join(own).encode())


def forget_rejects(
    staged: Path, directory: Path, manifest: Manifest, ids: set[str], places: set[Place]
) -> Manifest:
    """Stage the logs that name what was taken down without it, and count it no longer.

    A document that never comes to a stage is not left out by it either.
    """
    rejects = dict(manifest.rejects)
    folder = directory / "rejects"
    for path in sorted(folder.iterdir()) if folder.exists() else []:
        kept, dropped = [], 0
        for line in path.read_bytes().splitlines(keepends=True):  # a text knows more line ends
            row = json.loads(line)
            if row.get("id") in ids or (row["source"], row["offset"]) in places:
                rejects[row["reason"]] -= 1
                dropped += 1
            else:
                kept.append(line)
        if dropped:
            with atomic_write(staged / "rejects" / path.name) as file:
                file.write(b"".join(kept))
    return replace(manifest, rejects={name: count for name, count in rejects.items() if count})


def without_counts(
    tables: Mapping[str, Mapping[str, int]], gone: Iterable[tuple[Shard, pa.RecordBatch]]
) -> dict[str, dict[str, int]]:
    """The tables by source, language and licence without the documents that went.

    What else a table counts is what a stage met, and stays.
    """
    left = {name: Counter(table) for name, table in tables.items()}
    for shard, rows in gone:
        for row in rows.to_pylist():
            keys = {"source": _label(shard, row["source"], tables)}
            keys |= {name: row[name] or "" for name in ("language", "licence")}
            for by, key in keys.items():
                for what in ("documents", "characters", "bytes"):
                    if f"{what} by {by}" in left:
                        left[f"{what} by {by}"][key] -= row[what]
    return {
        name: {key: count for key, count in table.items() if count or not tables[name][key]}
        for name, table in left.items()
    }


def with_rejects(
    tables: Mapping[str, Mapping[str, int]], gone: Iterable[tuple[Shard, pa.RecordBatch]]
) -> dict[str, dict[str, int]]:
    """The tables with what was taken down among the rejects by source."""
    rejects = Counter(tables.get("rejects by source", {}))
    for shard, rows in gone:
        for source in rows.column("source").to_pylist():
            rejects[_label(shard, source, tables)] += 1
    return {name: dict(table) for name, table in tables.items()} | {
        "rejects by source": dict(rejects)
    }


def _label(shard: Shard, source: str, tables: Mapping[str, Mapping[str, int]]) -> str:
    """What ingest's tables call a source: its split, and its name where it has one."""
    named = f"{shard.split}/{source.partition('/')[0]}"
    return named if named in tables.get("documents by source", ()) else shard.split


def _brief(rows: pa.RecordBatch) -> pa.RecordBatch:
    """What is to be said of rows that go, without their texts."""
    if "text" not in rows.schema.names:
        return rows.select(["id"])
    columns = {name: rows.column(name) for name in rows.schema.names if name != "text"}
    columns["documents"] = pa.repeat(1, rows.num_rows)
    columns["characters"] = pc.utf8_length(rows.column("text"))
    columns["bytes"] = pc.binary_length(rows.column("text"))
    return pa.RecordBatch.from_pydict(columns)


def rows_of(path: Path, ids: pa.Array) -> NDArray[np.int64]:
    """The rows of a document shard that have one of the ids."""
    masks: list[Any] = [
        pc.is_in(batch.column("id"), value_set=ids).to_numpy(zero_copy_only=False)
        for batch in read_batches(path)
    ]
    return np.flatnonzero(np.concatenate([np.zeros(0, np.bool_), *masks]))
