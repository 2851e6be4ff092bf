"""matches: which documents repeat an earlier one, one task a range of hashes.

The rule. Documents are ranked: first the validation sets that have files of their own, then the
documents that a validation set's share takes from the corpus, then those to train on; within each
in the manifest's order. A document goes where one of lower rank, itself kept or not,

- has the same id (*exact*: all 128 bits), or
- shares the key of a whole band, leads in that bucket (see
  :func:`preprocessing.duplicates.matching.near_matches`), and agrees in at least ``threshold`` of
  the numbers of its signature (*near*).

So nothing that is trained on repeats what is validated on, and the result is a function of the
documents and the configuration alone. That kept or not does not matter makes it independent of the
order of work; a chain of ever less similar documents thus leaves its first one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from configs.schema import to_plain
from preprocessing.draws import purpose_key, uniform
from preprocessing.duplicates import NearConfig
from preprocessing.duplicates.matching import Matches as Found
from preprocessing.duplicates.matching import exact_matches, near_matches, shared
from preprocessing.duplicates.records import (
    BAND_RECORDS,
    DROP_BYTES,
    DROPS,
    ID_RECORDS,
    RUN,
    Partition,
    SignatureStore,
    binary_column,
    num_partitions,
    read_partition,
)
from preprocessing.settings import Preparation
from preprocessing.stage import DigestedInputs, Made
from preprocessing.storage import Manifest, manifest_digest, shard_name, write_shard

_CLASS = np.uint64(1 << 56)


@dataclass(frozen=True)
class Ranking:
    """What ranks and splits documents.

    Attributes:
        starts: position of each document shard's first row, int64 ``[shards]``.
        from_files: which shards ``[shards]`` belong to a validation set with files of its own.
        seed: of the draw of held-out documents.
        heldout: share by validation set.
    """

    starts: NDArray[np.int64]
    from_files: NDArray[np.bool_]
    seed: int
    heldout: Mapping[str, float]

    @staticmethod
    def of(manifest: Manifest, preparation: Preparation) -> Ranking:
        """The ranking of the documents in a manifest."""
        rows = [shard.rows for shard in manifest.shards]
        return Ranking(
            np.cumsum([0, *rows[:-1]]).astype(np.int64),
            np.array([shard.split != "train" for shard in manifest.shards], np.bool_),
            preparation.seed,
            heldout_shares(preparation),
        )

    def split_draws(self, keys: NDArray[np.uint64]) -> NDArray[np.int16]:
        """The set that takes each document of the training files, as a place in ``heldout``.

        -1 is training itself. Looks at the first 64 bits of the id and the seed alone, so it is
        stable as the corpus grows.
        """
        draw = uniform(keys ^ purpose_key(self.seed, "heldout"), 0, 0)
        edges = np.cumsum(list(self.heldout.values()))
        places = np.searchsorted(edges, draw, side="right").astype(np.int16)
        places[places == len(edges)] = -1
        return places

    def ranks(self, positions: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """What orders documents; lower ones stay."""
        taken = self.split_draws(keys) >= 0
        own = self.from_files[self.shards(positions)]
        return np.where(own, 0, np.where(taken, 1, 2)).astype(np.uint64) * _CLASS + positions

    def shards(self, positions: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The document shard of each position."""
        return np.searchsorted(self.starts, positions.astype(np.int64), side="right") - 1


@dataclass(frozen=True)
class Task:
    """One partition of the ids or of the bands."""

    signatures: Path
    directory: Path
    number: int
    kind: Literal["ids", "bands"]
    partition: Partition
    ranking: Ranking
    near: NearConfig | None


class Matches(DigestedInputs):
    """The stage, as :func:`preprocessing.stage.run_stage` sees it."""

    name = "matches"

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation
        self._near = preparation.corpus.deduplicate.near
        self._source = preparation.signatures_directory
        self.directory = preparation.matches_directory

    def configuration(self) -> Any:
        """What ranks documents, and from where on two of them are too similar."""
        return {
            "seed": self._preparation.seed,
            "heldout": heldout_shares(self._preparation),
            "near": to_plain(self._near),
        }

    def inputs(self) -> Mapping[str, str]:
        """The manifest of the signatures, which holds that of the documents."""
        return {"signatures": manifest_digest(self._source)}

    def plan(self) -> Sequence[Task]:
        """One task a partition; how many there are follows from the number of records."""
        manifest = Manifest.read(self._source)
        documents = Manifest.read(self._preparation.cleaned_directory)
        ranking = Ranking.of(documents, self._preparation)
        tasks: list[Task] = []
        kinds: tuple[Literal["ids", "bands"], ...] = ("ids", "bands") if self._near else ("ids",)
        for kind in kinds:
            count = num_partitions(manifest.totals(kind)["rows"])
            for number in range(count):
                partition = Partition(number, count)
                tasks.append(
                    Task(
                        self._source,
                        self.directory,
                        len(tasks),
                        kind,
                        partition,
                        ranking,
                        self._near,
                    )
                )
        return tasks

    def expected_bytes(self) -> int:
        """As if every document repeated another."""
        return DROP_BYTES * Manifest.read(self._source).totals("ids")["rows"]

    @property
    def function(self) -> Callable[[Task], Made]:
        """Find the duplicates of one partition."""
        return match

    def finish(self, made: Sequence[Made]) -> Mapping[str, Any]:
        """Nothing to add."""
        return {}


def heldout_shares(preparation: Preparation) -> dict[str, float]:
    """The validation sets that take a share of the corpus, in the order of their names."""
    return {
        name: entry.share
        for name, entry in sorted(preparation.corpus.validation.items())
        if entry.share is not None
    }


def match(task: Task) -> Made:
    """Write which documents one partition drops."""
    starts, shards = task.ranking.starts, range(len(task.ranking.starts))
    paths = [task.signatures / shard_name(task.kind, number) for number in shards]
    schema = ID_RECORDS if task.kind == "ids" else BAND_RECORDS
    records = read_partition(paths, schema, starts, task.partition)
    if task.kind == "ids":
        drops = _drop_exact(task.ranking, records)
    else:
        assert task.near is not None
        paths = [task.signatures / shard_name("signatures", number) for number in shards]
        store = SignatureStore(paths, starts, task.near.num_hashes)
        drops = _drop_near(task.ranking, records, store, task.near.threshold)
    name = shard_name("drops", task.number)
    with write_shard(task.directory / name, DROPS, RUN) as writer:
        for start in range(0, drops.num_rows, RUN):
            writer.write(drops.slice(start, RUN))
        return Made((writer.finish(name, {}),))


def _drop_exact(ranking: Ranking, records: Mapping[str, NDArray[np.uint64]]) -> pa.RecordBatch:
    key, rest, positions = records["key"], records["rest"], records["position"]
    found = exact_matches(key, rest, ranking.ranks(positions, key))
    ids = np.stack([key[found.kept], rest[found.kept]], axis=1)
    return _drops(ranking, positions[found.repeated], ids, found)


def _drop_near(
    ranking: Ranking,
    records: Mapping[str, NDArray[np.uint64]],
    store: SignatureStore,
    threshold: float,
) -> pa.RecordBatch:
    chosen = shared(records["key"])
    key, positions = records["key"][chosen], records["position"][chosen]

    def similarity(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float64]:
        own, other = store.signatures(positions[first]), store.signatures(positions[second])
        agree: NDArray[np.float64] = np.mean(own == other, axis=1)
        return agree

    ranks = ranking.ranks(positions, store.ids(positions)[:, 0])
    found = near_matches(key, ranks, similarity, threshold)
    return _drops(ranking, positions[found.repeated], store.ids(positions[found.kept]), found)


def _drops(
    ranking: Ranking, positions: NDArray[np.uint64], ids: NDArray[np.uint64], found: Found
) -> pa.RecordBatch:
    order = np.lexsort((ids[:, 1], ids[:, 0], positions))
    positions = positions[order].astype(np.int64)
    shards = ranking.shards(positions)
    arrays = [
        pa.array(shards.astype(np.uint32)),
        pa.array((positions - ranking.starts[shards]).astype(np.uint32)),
        pa.array(found.similarity[order]),
        binary_column(ids[order]),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=DROPS)
