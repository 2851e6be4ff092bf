"""ingest: raw files of any supported form become document shards, and nothing is lost silently.

Every record of the input is either a document or a reject with its reason; the manifest counts
both by source, language and licence, and ``rejects/*.jsonl`` lists the rejects one by one.

Each task digests the bytes of its own slices while it reads them; a file's digest is composed of
those of its slices, so that no file is read twice and no process reads all of them.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.schema import to_plain
from preprocessing.documents import (
    ROWS_PER_BATCH,
    SCHEMA,
    DocumentWriter,
    Rejected,
    RejectLog,
    document_ids,
)
from preprocessing.places import RemotePath
from preprocessing.reading import megatron
from preprocessing.reading.archives import compression_by_name
from preprocessing.reading.base import Documents, Reject, Split
from preprocessing.reading.hub import list_datasets
from preprocessing.reading.listing import Listing, list_sources
from preprocessing.reading.readers import read
from preprocessing.reading.settings import ReadingConfig, SourceConfig
from preprocessing.reading.sources import (
    Slice,
    SliceDigest,
    Source,
    compose_digests,
    digest_slices,
    open_bytes,
    short_names,
    shown,
    split,
)
from preprocessing.settings import Preparation, ValidationConfig
from preprocessing.stage import Made
from preprocessing.storage import MANIFEST, InputError, shard_name, write_shard
from preprocessing.takedown.ledger import LEDGER, leave_out, ledger_input, taken_down

_TRAIN = "train"
_COMPRESSED, _COLUMNAR = 4, 3
"""How many bytes of text a byte of such a file usually holds, for the forecast."""


@dataclass(frozen=True)
class Raw:
    """The raw files of one source of one split, and the slices of each task.

    ``folder`` stands before the names that documents have for their files.
    """

    split: str
    name: str
    folder: str
    listing: Listing
    reading: SourceConfig | ValidationConfig
    tasks: tuple[tuple[Slice, ...], ...]

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"{self.split}/{self.name}" if self.name else self.split

    def names(self) -> dict[str, str]:
        """What documents call their files."""
        names = short_names(self.listing.sources)
        return {url: f"{self.folder}/{n}" if self.folder else n for url, n in names.items()}

    def slices(self) -> dict[str, list[Slice]]:
        """The slices of each file, in order."""
        slices: dict[str, list[Slice]] = {}
        for task in self.tasks:
            for piece in task:
                slices.setdefault(piece.source.url, []).append(piece)
        return slices


@dataclass(frozen=True)
class Task:
    """Some slices that become one shard; ``names`` are what documents call their files."""

    directory: Path
    split: str
    number: int
    slices: tuple[Slice, ...]
    names: Mapping[str, str]
    label: str
    reading: ReadingConfig
    ledger: Path


class Ingest:
    """The stage, as :func:`preprocessing.stage.run_stage` sees it."""

    name = "ingest"

    def __init__(self, preparation: Preparation) -> None:
        self._corpus = corpus = preparation.corpus
        self.directory = preparation.documents_directory
        train = [
            self._list(_TRAIN, name, source)
            for name, source in sorted(corpus.training_sources().items())
        ]
        validation = [
            self._list(name, "", entry)
            for name, entry in sorted(corpus.validation.items())
            if entry.inputs
        ]
        self._raw = [*_apart(train, validation), *train]

    def _list(self, split_name: str, name: str, reading: SourceConfig | ValidationConfig) -> Raw:
        if reading.form == "datasets":
            listing = list_datasets(reading.inputs, reading)
        else:
            listing = list_sources(reading.inputs)
        tasks = split(listing.sources, reading, self._corpus.shard_bytes)
        folder = name if split_name == _TRAIN else split_name
        return Raw(split_name, name, folder, listing, reading, tuple(tasks))

    def configuration(self) -> Any:
        """How each source is read, and the cut into shards."""
        return {
            "sources": {
                f"{raw.split}/{raw.name}": {
                    key: value
                    for key, value in to_plain(raw.reading).items()
                    if key not in ("inputs", "share", "megatron_tokenizer")
                }
                for raw in self._raw
            },
            "shard_bytes": self._corpus.shard_bytes,
        }

    def inputs(self) -> Mapping[str, str]:
        """Sizes and dates of the raw files; marks of those far away."""
        return self._indices() | {
            name: f"{source.size}:{source.mark or _touched_at(source.url)}"
            for name, source, _ in self._files()
        }

    def changed_inputs(self, recorded: Mapping[str, str]) -> Mapping[str, str]:
        """Digests of the raw files.

        Reading terabytes only to learn that nothing changed would be a poor start; files of the
        recorded size that nothing was done to since the manifest keep their recorded digest.
        """
        manifest = self.directory / MANIFEST
        made_at = manifest.stat().st_mtime if manifest.exists() else 0.0
        if isinstance(manifest, RemotePath) and "takedown" in recorded:
            made_at = 0.0  # the store dated it when documents were taken down
        found = self._indices()
        for name, source, slices in self._files():
            known = recorded.get(name, "")
            touched = _touched_at(source.url)
            if source.mark is not None:
                found[name] = f"{source.size}:{source.mark}"
            elif known.startswith(f"{source.size}:") and touched and touched < made_at:
                found[name] = known
            else:
                found[name] = f"{source.size}:{digest_slices(slices)}"
        return found

    def inputs_read(self, made: Sequence[Made]) -> Mapping[str, str]:
        """Digests of the raw files, of what the tasks read."""
        digests: dict[str, list[str]] = {}
        for one in made:  # in the order of the tasks, and so of a file's slices
            for name, digest in one.facts["digests"]:
                digests.setdefault(name, []).append(digest)
        return self._indices() | {
            name: f"{source.size}:{source.mark or compose_digests(digests[name])}"
            for name, source, _ in self._files()
        }

    def _files(self) -> list[tuple[str, Source, list[Slice]]]:
        """Every file with its name in the manifest and its slices."""
        files = []
        for raw in self._raw:
            names, slices = raw.names(), raw.slices()
            files += [
                (_input_name(raw.split, names[source.url]), source, slices[source.url])
                for source in raw.listing.sources
            ]
        return files

    def _indices(self) -> dict[str, str]:
        """What else decides the documents: the ledger of takedowns, and more of Megatron's."""
        found = ledger_input(self._corpus.directory)
        for raw in self._raw:
            if (tokenizer := raw.reading.megatron_tokenizer) is not None:
                for url, name in raw.names().items():
                    index = _input_name(raw.split, megatron.index_url(name))
                    found[f"{index} and tokenizer"] = megatron.identify(url, tokenizer)
        return found

    def plan(self) -> Sequence[Task]:
        """One task a shard."""
        tasks: list[Task] = []
        numbers: Counter[str] = Counter()
        ledger = self._corpus.directory / LEDGER
        for raw in self._raw:
            names = raw.names()
            for slices in raw.tasks:
                own = {piece.source.url: names[piece.source.url] for piece in slices}
                place = (self.directory, raw.split, numbers[raw.split])
                tasks.append(Task(*place, slices, own, raw.label, raw.reading, ledger))
                numbers[raw.split] += 1
        return tasks

    def expected_bytes(self) -> int:
        """The text in the files; of compressed and columnar ones as much as such usually hold."""
        total = 0
        for raw in self._raw:
            columnar = raw.reading.form in ("parquet", "datasets", "megatron")
            for source in raw.listing.sources:
                packed = _COMPRESSED if compression_by_name(source.url) else 1
                total += source.size * max(packed, _COLUMNAR if columnar else 1)
        return total

    @property
    def function(self) -> Callable[[Task], Made]:
        """Read the slices of one task."""
        return ingest

    def finish(self, made: Sequence[Made]) -> Mapping[str, Any]:
        """Refuse a corpus without documents, and one with more rejects than were allowed."""
        documents = sum(shard.rows for one in made for shard in one.shards)
        rejects: Counter[str] = Counter()
        for one in made:
            rejects.update(one.rejects)
        documents += rejects.pop("taken_down", 0)  # nothing is wrong with them
        share = rejects.total() / max(1, documents + rejects.total())
        table = ", ".join(f"{count} {reason}" for reason, count in sorted(rejects.items()))
        for raw in self._raw:
            rows = sum(
                shard.rows for one in made for shard in one.shards if shard.split == raw.split
            )
            if rows == 0:
                where = ", ".join(shown(source.url) for source in raw.listing.sources[:3])
                raise InputError(
                    f"{where}: no document for '{raw.split}' in {len(raw.listing.sources)} files "
                    f"(rejected: {table or 'nothing'}); is the form '{raw.reading.form}' right?"
                )
        if share > self._corpus.allowed_reject_share:
            raise InputError(
                f"{rejects.total()} of {documents + rejects.total()} records were "
                f"rejected ({table}); {self.directory / 'rejects'} lists them. Mend the files, or "
                f"allow it: corpus.allowed_reject_share={math.ceil(share * 1000) / 1000}"
            )
        names = [Source(path, 0) for raw in self._raw for path in raw.listing.passed_over]
        return {"passed_over": sorted(short_names(names).values())} if names else {}


def _apart(train: Sequence[Raw], validation: Sequence[Raw]) -> list[Raw]:
    """The validation sets with folders such that no two files anywhere have the same name.

    A document is known by its file's name and its place in it.
    """
    taken = {name for raw in train for name in raw.names().values()}
    found = []
    for raw in validation:
        while not taken.isdisjoint(raw.names().values()):
            raw = replace(raw, folder=f"{raw.split}/{raw.folder}")
        taken.update(raw.names().values())
        found.append(raw)
    return found


def _input_name(split_name: str, source: str) -> str:
    """What the manifest calls a file; validation sets stand in their names already."""
    return f"{_TRAIN}/{source}" if split_name == _TRAIN else source


def _touched_at(path: str) -> float | None:
    """When a file last changed; a move or a copy that keeps its dates shows in the second one.

    None for what is not on this machine.
    """
    if not os.path.exists(path):
        return None
    status = os.stat(path)
    return max(status.st_mtime, status.st_ctime)


def ingest(task: Task) -> Made:
    """Read slices of raw files into one shard of documents and one log of rejects."""
    name = shard_name(task.split, task.number)
    counts = _Counts(task.label)
    digests: list[tuple[str, str]] = []
    ids_down = taken_down(task.ledger)
    with (
        RejectLog(task.directory, task.split, task.number) as log,
        write_shard(task.directory / name, SCHEMA, ROWS_PER_BATCH) as writer,
    ):
        shard = DocumentWriter(writer)
        for piece in task.slices:
            source = task.names[piece.source.url]
            digest = None if piece.source.mark else SliceDigest(piece)
            for record in read(piece, task.reading, digest):
                if isinstance(record, Documents):
                    batch, banned = leave_out(_batch(record, source, task.reading), ids_down)
                    shard.write(batch)
                    counts.add(batch, record.replaced_bytes)
                    for one in banned:
                        counts.reasons[one.reason] += 1
                        log.add(one)
                elif isinstance(record, Reject):
                    counts.reasons[record.reason] += 1
                    log.add(Rejected(record.reason, source, record.offset, record.detail))
                elif isinstance(record, Split):
                    counts.table("split documents by source")[task.label] += 1
            if digest:
                with open_bytes(piece.source.url) as file:
                    digests.append((_input_name(task.split, source), digest.finish(file)))
        origin = task.label.partition("/")[2] or None
        made = writer.finish(name, {"characters": counts.characters}, origin)
    return Made((made,), dict(counts.reasons), counts.finished(), {"digests": digests})


def _batch(documents: Documents, source: str, reading: ReadingConfig) -> pa.RecordBatch:
    count = len(documents)
    columns = [
        document_ids(documents.texts),
        documents.texts,
        pa.repeat(source, count),
        pa.array(documents.offsets, pa.int64()),
        _labels(documents.languages, reading.language, count),
        _labels(documents.licences, reading.licence, count),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _labels(values: Sequence[str | None] | None, constant: str | None, count: int) -> pa.Array:
    if values is None:
        return pa.repeat(pa.scalar(constant, pa.string()), count)
    found = pa.array(values, pa.string())
    return found if constant is None else found.fill_null(constant)


class _Counts:
    """What a task counts for the manifest."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._tables: dict[str, Counter[str]] = {}
        self.reasons: Counter[str] = Counter()
        self.characters = 0

    def table(self, name: str) -> Counter[str]:
        """Counts by name; there is a table once something is counted in it."""
        return self._tables.setdefault(name, Counter())

    def add(self, batch: pa.RecordBatch, replaced_bytes: int) -> None:
        """Count documents, characters and bytes, all of them and by what is known of them."""
        texts = batch.column("text")
        sizes = pc.binary_length(texts)
        characters = pc.utf8_length(texts)
        self.characters += pc.sum(characters, min_count=0).as_py()
        self._sum("source", self._label, batch.num_rows, characters, sizes)
        for name in ("language", "licence"):
            column = batch.column(name)
            for value in column.unique():
                mask = pc.equal(column, value) if value.is_valid else pc.is_null(column)
                whole = pc.all(mask).as_py()
                parts = [part if whole else part.filter(mask) for part in (characters, sizes)]
                self._sum(name, value.as_py() or "", len(parts[0]), *parts)
        if replaced_bytes:
            self.table("replaced bytes by source")[self._label] += replaced_bytes
        _, places, buffer = texts.buffers()
        offsets = np.frombuffer(places, dtype=np.int64)[texts.offset :][: len(texts) + 1]
        data = np.frombuffer(buffer, dtype=np.uint8)[offsets[0] : offsets[-1]]
        if nulls := len(data) - int(np.count_nonzero(data)):
            self.table("NUL characters by source")[self._label] += nulls

    def _sum(self, by: str, key: str, rows: int, characters: pa.Array, sizes: pa.Array) -> None:
        self.table(f"documents by {by}")[key] += rows
        self.table(f"characters by {by}")[key] += pc.sum(characters, min_count=0).as_py()
        self.table(f"bytes by {by}")[key] += pc.sum(sizes, min_count=0).as_py()

    def finished(self) -> dict[str, dict[str, int]]:
        """The tables as plain values, rejects by source among them."""
        if self.reasons:
            self.table("rejects by source")[self._label] += self.reasons.total()
        return {name: dict(table) for name, table in self._tables.items()}
