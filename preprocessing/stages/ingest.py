"""ingest: raw files of any supported form become document shards, and nothing is lost silently.

Every record of the input is either a document or a reject with its reason; the manifest counts
both, and ``rejects/part-*.jsonl`` lists the rejects one by one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from preprocessing.readers import (
    Document,
    Form,
    Slice,
    Source,
    digest_source,
    list_sources,
    read,
    split,
)
from preprocessing.settings import Preparation
from preprocessing.stage import Made
from preprocessing.storage import (
    MANIFEST,
    InputError,
    Manifest,
    atomic_write,
    shard_name,
    write_shard,
)

SCHEMA = pa.schema(
    [
        pa.field("id", pa.binary(16), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
    ]
)
ROWS_PER_BATCH = 256


@dataclass(frozen=True)
class Raw:
    """The raw files of one split."""

    split: str
    sources: tuple[Source, ...]
    form: Form
    text_field: str


@dataclass(frozen=True)
class Task:
    """Some slices that become one shard."""

    directory: Path
    split: str
    number: int
    slices: tuple[Slice, ...]
    names: Mapping[str, str]
    form: Form
    text_field: str


class Ingest:
    """The stage, as :func:`preprocessing.stage.run_stage` sees it."""

    name = "ingest"

    def __init__(self, preparation: Preparation) -> None:
        self._corpus = preparation.corpus
        self.directory = preparation.documents_directory
        corpus = preparation.corpus
        given = {
            name: (entry.inputs, entry.form, entry.text_field)
            for name, entry in sorted(corpus.validation.items())
            if entry.inputs
        } | {"train": (corpus.inputs, corpus.form, corpus.text_field)}
        self._raw = [
            Raw(name, tuple(list_sources(patterns)), form, text_field)
            for name, (patterns, form, text_field) in given.items()
        ]

    def configuration(self) -> Any:
        """Forms, field names and the cut into shards."""
        return {
            "splits": {raw.split: [raw.form, raw.text_field] for raw in self._raw},
            "shard_bytes": self._corpus.shard_bytes,
        }

    def inputs(self) -> Mapping[str, str]:
        """Digests of the raw files.

        Reading terabytes only to learn that nothing changed would be a poor start; files of the
        recorded size that nothing was done to since the manifest keep their recorded digest.
        """
        known: Mapping[str, str] = {}
        made_at = 0.0
        if (self.directory / MANIFEST).exists():
            known = Manifest.read(self.directory).inputs
            made_at = (self.directory / MANIFEST).stat().st_mtime
        digests = {}
        for raw in self._raw:
            names = short_names(raw.sources)
            for source in raw.sources:
                name = f"{raw.split}/{names[source.url]}"
                recorded = known.get(name, "")
                unchanged = (
                    recorded.startswith(f"{source.size}:")
                    and os.path.exists(source.url)
                    and _touched_at(source.url) < made_at
                )
                digests[name] = recorded if unchanged else f"{source.size}:{digest_source(source)}"
        return digests

    def plan(self) -> Sequence[Task]:
        """One task a shard."""
        tasks = []
        for raw in self._raw:
            names = short_names(raw.sources)
            parts = split(list(raw.sources), raw.form, self._corpus.shard_bytes)
            for number, slices in enumerate(parts):
                own = {piece.source.url: names[piece.source.url] for piece in slices}
                tasks.append(
                    Task(self.directory, raw.split, number, slices, own, raw.form, raw.text_field)
                )
        return tasks

    @property
    def function(self) -> Callable[[Task], Made]:
        """Read the slices of one task."""
        return ingest

    def finish(self, made: Sequence[Made]) -> Mapping[str, Any]:
        """Refuse a corpus without documents, and one with more rejects than were allowed."""
        documents = sum(shard.rows for one in made for shard in one.shards)
        rejects: dict[str, int] = {}
        for one in made:
            for reason, count in one.rejects.items():
                rejects[reason] = rejects.get(reason, 0) + count
        share = sum(rejects.values()) / max(1, documents + sum(rejects.values()))
        table = ", ".join(f"{count} {reason}" for reason, count in sorted(rejects.items()))
        for raw in self._raw:
            rows = sum(
                shard.rows for one in made for shard in one.shards if shard.split == raw.split
            )
            if rows == 0:
                where = ", ".join(source.url for source in raw.sources[:3])
                raise InputError(
                    f"{where}: no document for '{raw.split}' in {len(raw.sources)} files "
                    f"(rejected: {table or 'nothing'}); is corpus.form '{raw.form}' right?"
                )
        if share > self._corpus.allowed_reject_share:
            raise InputError(
                f"{sum(rejects.values())} of {documents + sum(rejects.values())} records were "
                f"rejected ({table}); {self.directory / 'rejects'} lists them. Mend the files, or "
                f"allow it: corpus.allowed_reject_share={math.ceil(share * 1000) / 1000}"
            )
        return {}


def short_names(sources: Sequence[Source]) -> dict[str, str]:
    """Names of the files without what all of them share, so that no machine's paths are kept."""
    folders = [source.url.split("/")[:-1] for source in sources]
    shared = 0
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        shared += 1
    return {
        # Names on disk are bytes; what is not UTF-8 in them is spelled out.
        source.url: os.fsencode("/".join(source.url.split("/")[shared:])).decode(
            errors="backslashreplace"
        )
        for source in sources
    }


def _touched_at(path: str) -> float:
    """When a file last changed; a move or a copy that keeps its dates shows in the second one."""
    status = os.stat(path)
    return max(status.st_mtime, status.st_ctime)


def ingest(task: Task) -> Made:
    """Read slices of raw files into one shard of documents and one list of rejects."""
    name = shard_name(task.split, task.number)
    rejects: list[str] = []
    reasons: dict[str, int] = {}
    characters = 0
    with write_shard(task.directory / name, SCHEMA, ROWS_PER_BATCH) as writer:
        rows: list[tuple[bytes, str, str, int]] = []
        for piece in task.slices:
            for record in read(piece, task.form, task.text_field):
                source = task.names[record.url]
                if isinstance(record, Document):
                    identity = hashlib.blake2b(record.text.encode(), digest_size=16).digest()
                    rows.append((identity, record.text, source, record.offset))
                    characters += len(record.text)
                    if len(rows) == ROWS_PER_BATCH:
                        writer.write(_batch(rows))
                        rows = []
                else:
                    reasons[record.reason] = reasons.get(record.reason, 0) + 1
                    row = {
                        "reason": record.reason,
                        "source": source,
                        "offset": record.offset,
                        "detail": record.detail,
                    }
                    rejects.append(json.dumps(row, ensure_ascii=False))
        if rows:
            writer.write(_batch(rows))
        shard = writer.finish(name, {"characters": characters})
    if rejects:
        path = task.directory / "rejects" / f"{task.split}-{task.number:05d}.jsonl"
        with atomic_write(path) as file:
            file.write(("\n".join(rejects) + "\n").encode())
    return Made((shard,), reasons)


def _batch(rows: Sequence[tuple[bytes, str, str, int]]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    arrays = [
        pa.array(list(column), type=field.type)
        for column, field in zip(columns, SCHEMA, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)
