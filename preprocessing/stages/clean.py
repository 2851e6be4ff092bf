"""clean: documents are repaired, filtered and masked; every one that is dropped is counted.

One task a document shard, which becomes a shard of the same name. What is done, and in which
order, stands in :mod:`preprocessing.cleaning.settings`. A document's id is the digest of its
cleaned text, so that what became equal counts as equal later.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from configs.schema import to_plain
from preprocessing.cleaning import CleaningConfig
from preprocessing.cleaning.cleaner import Cleaner, versions
from preprocessing.cleaning.evaluation import evaluation_digests
from preprocessing.documents import (
    ROWS_PER_BATCH,
    SCHEMA,
    DocumentWriter,
    RejectLog,
    read_batches,
)
from preprocessing.settings import Preparation
from preprocessing.stage import DigestedInputs, Made
from preprocessing.storage import InputError, Manifest, file_digest, manifest_digest, write_shard
from preprocessing.takedown.ledger import LEDGER, leave_out, ledger_input, taken_down

_BYTES_AT_ONCE = 1 << 19


@dataclass(frozen=True)
class Task:
    """One shard of documents."""

    source: Path
    directory: Path
    name: str
    origin: str | None
    config: CleaningConfig
    ledger: Path


class Clean(DigestedInputs):
    """The stage, as :func:`preprocessing.stage.run_stage` sees it."""

    name = "clean"

    def __init__(self, preparation: Preparation) -> None:
        assert preparation.corpus.clean is not None
        self._config = preparation.corpus.clean
        self._corpus = preparation.corpus.directory
        self._source = preparation.documents_directory
        self._manifest = Manifest.read(self._source)
        self.directory = preparation.filtered_directory

    def configuration(self) -> Any:
        """Everything but the paths, with the versions of the libraries that decide."""
        plain = to_plain(self._config)
        for profile in plain["profiles"].values():
            if profile["c4"] is not None:
                profile["c4"]["bad_words"] = profile["c4"]["bad_words"] is not None
        for entry in (plain["decontaminate"] or {"sets": {}})["sets"].values():
            del entry["inputs"]
        return plain | {"versions": versions(self._config)}

    def inputs(self) -> Mapping[str, str]:
        """The manifest of the documents, lists of words and evaluation sets."""
        digests = {"documents": manifest_digest(self._source), **ledger_input(self._corpus)}
        for language, profile in sorted(self._config.profiles.items()):
            if profile.c4 is not None and profile.c4.bad_words is not None:
                path = profile.c4.bad_words
                if not path.is_file():
                    raise InputError(
                        f"corpus.clean.profiles.{language}.c4.bad_words: {path}: no such file"
                    )
                digests[f"bad_words/{language}"] = file_digest(path)
        if self._config.decontaminate is not None:
            digests |= evaluation_digests(self._config.decontaminate)
        return digests

    def plan(self) -> Sequence[Task]:
        """One task a shard of documents, in the manifest's order."""
        return [
            Task(
                self._source / shard.name,
                self.directory,
                shard.name,
                shard.source,
                self._config,
                self._corpus / LEDGER,
            )
            for shard in self._manifest.shards
        ]

    def expected_bytes(self) -> int:
        """As if every document were kept."""
        return self._manifest.totals()["bytes"]

    @property
    def function(self) -> Callable[[Task], Made]:
        """Clean one shard."""
        return clean

    def finish(self, made: Sequence[Made]) -> Mapping[str, Any]:
        """Refuse a split without documents."""
        for split in self._manifest.splits:
            rows = sum(shard.rows for one in made for shard in one.shards if shard.split == split)
            if rows == 0:
                reasons: Counter[str] = Counter()
                for one in made:
                    if one.shards[0].split == split:
                        reasons.update(one.rejects)
                table = ", ".join(f"{count} {name}" for name, count in sorted(reasons.items()))
                raise InputError(
                    f"{self.directory}: no document is left for '{split}' of "
                    f"{self._manifest.totals(split)['rows']} ({table or 'there were none'}); "
                    f"{self.directory / 'rejects'} lists them. Change corpus.clean"
                )
        return {}


def clean(task: Task) -> Made:
    """Clean one shard of documents into another."""
    cleaner = Cleaner(task.config)
    reasons: Counter[str] = Counter()
    characters = 0
    split, _, file_name = task.name.rpartition("/")
    number = int(Path(file_name).stem.rpartition("-")[2])
    with (
        RejectLog(task.directory, split, number) as log,
        write_shard(task.directory / task.name, SCHEMA, ROWS_PER_BATCH) as writer,
    ):
        documents = DocumentWriter(writer)
        for batch in _portions(task.source):
            kept, dropped = cleaner.clean(batch)
            kept, banned = leave_out(kept, taken_down(task.ledger))
            for row in dropped + banned:
                reasons[row.reason] += 1
                log.add(row)
            if kept.num_rows:
                documents.write(kept)
                lengths = pyarrow.compute.utf8_length(kept.column("text"))
                characters += pyarrow.compute.sum(lengths).as_py()
        shard = writer.finish(task.name, {"characters": characters}, task.origin)
    return Made((shard,), dict(sorted(reasons.items())), cleaner.tables)


def _portions(path: Path) -> Iterator[pa.RecordBatch]:
    """Documents of a shard, some megabytes of text at once."""
    for batch in read_batches(path):
        sizes = pyarrow.compute.binary_length(batch.column("text")).to_numpy(zero_copy_only=False)
        portion = np.cumsum(sizes) // _BYTES_AT_ONCE
        bounds = [0, *(np.flatnonzero(np.diff(portion)) + 1).tolist(), batch.num_rows]
        for start, stop in itertools.pairwise(bounds):
            if stop > start:
                yield batch.slice(start, stop - start)
