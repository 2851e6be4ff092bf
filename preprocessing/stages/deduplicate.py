"""deduplicate: documents that repeat an earlier one go, and the validation sets are split off.

One task a document shard. What repeats what was found by :mod:`preprocessing.stages.matches`, which
states the rule. The split looks at nothing but the id and the seed: it is stable as the corpus
grows, and only duplicates ever leave their set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from preprocessing.documents import (
    ROWS_PER_BATCH,
    SCHEMA,
    DocumentWriter,
    Rejected,
    RejectLog,
    read_batches,
)
from preprocessing.duplicates.records import binary_rows
from preprocessing.settings import Preparation
from preprocessing.stage import DigestedInputs, Made
from preprocessing.stages.matches import Ranking, heldout_shares
from preprocessing.stages.signatures import read_ids, repeats
from preprocessing.storage import (
    InputError,
    Manifest,
    manifest_digest,
    open_shard,
    shard_name,
    write_shard,
)


@dataclass(frozen=True)
class Task:
    """One shard of documents, the ``number``-th of its manifest, of the corpus's ``origin``."""

    source: Path
    directory: Path
    number: int
    split: str
    origin: str | None
    ranking: Ranking
    drops: tuple[Path, ...]


@dataclass(frozen=True)
class Drops:
    """The documents of one shard that go, ordered by row.

    Attributes:
        rows: int64 ``[n]``, each once.
        kept: the two halves ``[n, 2]`` of the ids of the documents they repeat.
        similarity: estimated Jaccard similarity ``[n]``; 1 for equal texts.
    """

    rows: NDArray[np.int64]
    kept: NDArray[np.uint64]
    similarity: NDArray[np.float64]


class Deduplicate(DigestedInputs):
    """The stage, as :func:`preprocessing.stage.run_stage` sees it."""

    name = "deduplicate"

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation
        self._source = preparation.cleaned_directory
        self._matches = preparation.matches_directory
        self._manifest = Manifest.read(self._source)
        self._heldout = heldout_shares(preparation)
        self.directory = preparation.clean_directory

    def configuration(self) -> Any:
        """The validation shares and the seed of their draw."""
        return {"seed": self._preparation.seed, "heldout": self._heldout}

    def inputs(self) -> Mapping[str, str]:
        """The manifests of the documents and of what was found among them."""
        return {
            "documents": manifest_digest(self._source),
            "matches": manifest_digest(self._matches),
        }

    def plan(self) -> Sequence[Task]:
        """One task a shard of documents, in the manifest's order."""
        ranking = Ranking.of(self._manifest, self._preparation)
        drops = tuple(self._matches / shard.name for shard in Manifest.read(self._matches).shards)
        return [
            Task(
                self._source / shard.name,
                self.directory,
                number,
                shard.split,
                shard.source,
                ranking,
                drops,
            )
            for number, shard in enumerate(self._manifest.shards)
        ]

    def expected_bytes(self) -> int:
        """As if no document repeated another."""
        return self._manifest.totals()["bytes"]

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
        gone = Counter[str]()
        for one in made:
            gone.update(one.rejects)
        table = ", ".join(f"{count} {reason}" for reason, count in sorted(gone.items()))
        for split, count in rows.items():
            if count == 0:
                raise InputError(
                    f"{self.directory}: no document is left for '{split}' of "
                    f"{self._manifest.totals()['rows']} documents (left out: {table or 'none'}); "
                    "the corpus is too small or repeats itself"
                    + (f", or corpus.validation.{split}.share is" if split in self._heldout else "")
                )
        return {}


def deal(task: Task) -> Made:
    """Write one shard a split from one shard of documents, and the log of what went."""
    ids = read_ids(task.source)
    drops = _read_drops(task, ids)
    splits = (*task.ranking.heldout, task.split)  # a place of -1 is the last one
    if task.split == "train":
        assignment = task.ranking.split_draws(ids[:, 0])
    else:
        assignment = np.full(len(ids), -1, np.int16)
    assignment[drops.rows] = len(splits)
    shards = []
    for place in np.unique(assignment[assignment < len(splits)]).tolist():
        name = shard_name(splits[place], task.number)
        with write_shard(task.directory / name, SCHEMA, ROWS_PER_BATCH) as writer:
            documents = DocumentWriter(writer)
            start = characters = 0
            for batch in read_batches(task.source):
                chosen = assignment[start : start + batch.num_rows] == place
                start += batch.num_rows
                if chosen.any():
                    part = batch.filter(pa.array(chosen))
                    characters += pc.sum(pc.utf8_length(part.column("text"))).as_py()
                    documents.write(part)
            shards.append(writer.finish(name, {"characters": characters}, task.origin))
    reasons: Counter[str] = Counter()
    with RejectLog(task.directory, task.split, task.number) as log:
        for one in _rejected(task.source, drops):
            log.add(one)
            reasons[one.reason] += 1
    return Made(tuple(shards), dict(reasons))


def _read_drops(task: Task, ids: NDArray[np.uint64]) -> Drops:
    """What the matches and the shard's own ``ids`` say, one row a document."""
    again = np.flatnonzero(repeats(ids))
    rows, kept, values = [again], [ids[again]], [np.ones(len(again), np.float64)]
    for path in task.drops:
        reader = open_shard(path)
        for index in range(reader.num_record_batches):
            batch = reader.get_batch(index)
            shards = batch.column("shard").to_numpy()
            low, high = np.searchsorted(shards, [task.number, task.number + 1])
            part = batch.slice(low, high - low)
            rows.append(part.column("row").to_numpy().astype(np.int64))
            kept.append(np.array(binary_rows(part.column("kept"), "<u8")))
            values.append(np.array(part.column("similarity").to_numpy()))
    row, other, value = np.concatenate(rows), np.concatenate(kept), np.concatenate(values)
    # Of several documents that one repeats, its own copy is named, then the most similar one.
    near = (ids[row] != other).any(axis=1)
    order = np.lexsort((other[:, 1], other[:, 0], -value, near, row))
    row, first = np.unique(row[order], return_index=True)
    chosen = order[first]
    return Drops(row, np.ascontiguousarray(other[chosen]), value[chosen])


def _rejected(path: Path, drops: Drops) -> Iterator[Rejected]:
    start = place = 0
    for batch in read_batches(path):
        stop = int(np.searchsorted(drops.rows, start + batch.num_rows))
        part = batch.select(["id", "source", "offset"]).take(drops.rows[place:stop] - start)
        for row, kept, similarity in zip(
            part.to_pylist(), drops.kept[place:stop], drops.similarity[place:stop], strict=True
        ):
            if row["id"] == kept.tobytes():
                reason, detail = "exact_duplicate", f"the same text as {row['id'].hex()}"
            else:
                reason = "near_duplicate"
                detail = f"estimated similarity {similarity:.2f} to {kept.tobytes().hex()}"
            yield Rejected(reason, row["source"], row["offset"], detail, row["id"].hex())
        start, place = start + batch.num_rows, stop
