"""deduplicate: exact duplicates go, then the validation sets are split off by document hash.

A document's id is the digest of its text, so equal texts have equal ids wherever they stand. Of
several copies the first counts, validation files before training files; thus no validation text is
trained on. The split looks at nothing but the id and the seed: it is stable as the corpus grows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from preprocessing.draws import purpose_key, uniform
from preprocessing.settings import Preparation
from preprocessing.stage import Made
from preprocessing.stages.ingest import ROWS_PER_BATCH, SCHEMA
from preprocessing.storage import (
    InputError,
    Manifest,
    Shard,
    manifest_digest,
    open_shard,
    shard_name,
    write_shard,
)


@dataclass(frozen=True)
class Task:
    """One shard of documents, with the split (an index, -1 for a duplicate) of each."""

    source: Path
    directory: Path
    number: int
    splits: tuple[str, ...]
    assignment: NDArray[np.int16]


class Deduplicate:
    """The stage, as :func:`preprocessing.stage.run_stage` sees it."""

    name = "deduplicate"

    def __init__(self, preparation: Preparation) -> None:
        self._source = preparation.documents_directory
        self._manifest = Manifest.read(self._source)
        self._seed = preparation.seed
        self._heldout = {
            name: entry.share
            for name, entry in sorted(preparation.corpus.validation.items())
            if entry.share is not None
        }
        self.directory = preparation.clean_directory

    def configuration(self) -> Any:
        """The validation shares and the seed of their draw."""
        return {"seed": self._seed, "heldout": self._heldout}

    def inputs(self) -> Mapping[str, str]:
        """The manifest of the documents."""
        return {"documents": manifest_digest(self._source)}

    def plan(self) -> Sequence[Task]:
        """One task a shard of documents, in the manifest's order."""
        shards = self._manifest.shards
        ids = [read_ids(self._source / shard.name) for shard in shards]
        everything = np.concatenate(ids) if ids else np.zeros(0, np.uint64)
        first = np.zeros(len(everything), dtype=bool)
        first[np.unique(everything, return_index=True)[1]] = True
        splits = ("train", *self._heldout, *(s for s in self._manifest.splits if s != "train"))
        tasks, start = [], 0
        for number, (shard, own) in enumerate(zip(shards, ids, strict=True)):
            assignment = self._assign(shard, own, splits)
            assignment[~first[start : start + len(own)]] = -1
            start += len(own)
            tasks.append(
                Task(self._source / shard.name, self.directory, number, splits, assignment)
            )
        return tasks

    def _assign(
        self, shard: Shard, ids: NDArray[np.uint64], splits: tuple[str, ...]
    ) -> NDArray[np.int16]:
        assignment = np.full(len(ids), splits.index(shard.split), dtype=np.int16)
        if shard.split == "train":
            draw = uniform(ids ^ purpose_key(self._seed, "heldout"), 0, 0)
            edge = 0.0
            for name, share in self._heldout.items():
                assignment[(edge <= draw) & (draw < edge + share)] = splits.index(name)
                edge += share
        return assignment

    @property
    def function(self) -> Callable[[Task], Made]:
        """Deal the documents of one shard to the splits."""
        return deal

    def finish(self, made: Sequence[Made]) -> Mapping[str, Any]:
        """Refuse a split without documents."""
        rows = dict.fromkeys((*self._manifest.splits, *self._heldout), 0)
        for one in made:
            for shard in one.shards:
                rows[shard.split] += shard.rows
        for split, count in rows.items():
            if count == 0:
                raise InputError(
                    f"{self.directory}: no document is left for '{split}' of "
                    f"{self._manifest.totals()['rows']} documents; the corpus is too small"
                    + (f", or corpus.validation.{split}.share is" if split in self._heldout else "")
                )
        return {}


def read_ids(path: Path) -> NDArray[np.uint64]:
    """The first 8 bytes of every document's id, ``[rows]``.

    64 bits of BLAKE2b: among a billion documents the chance of any false duplicate is below 3 %.
    """
    reader = open_shard(path)
    parts = [
        np.frombuffer(column.buffers()[1], dtype="<u8").reshape(-1, 2)[
            column.offset : column.offset + len(column), 0
        ]
        for index in range(reader.num_record_batches)
        for column in [reader.get_batch(index).column("id")]
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.uint64)


def deal(task: Task) -> Made:
    """Write one shard a split from one shard of documents."""
    reader = open_shard(task.source)
    shards = []
    for split_index in sorted(set(task.assignment[task.assignment >= 0].tolist())):
        name = shard_name(task.splits[split_index], task.number)
        with write_shard(task.directory / name, SCHEMA, ROWS_PER_BATCH) as writer:
            start = characters = 0
            for index in range(reader.num_record_batches):
                batch = reader.get_batch(index)
                chosen = task.assignment[start : start + batch.num_rows] == split_index
                start += batch.num_rows
                if chosen.any():
                    part = batch.filter(pa.array(chosen))
                    characters += pa.compute.sum(
                        pa.compute.utf8_length(part.column("text"))
                    ).as_py()
                    writer.write(part)
            shards.append(writer.finish(name, {"characters": characters}))
    return Made(tuple(shards), {"exact_duplicate": int((task.assignment < 0).sum())})
