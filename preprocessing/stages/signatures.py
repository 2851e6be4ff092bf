"""signatures: what duplicates are found by, one task a document shard.

Every distinct document of a shard leaves its id, and where near duplicates are looked for its
MinHash signature and a key for each band of it (see :mod:`preprocessing.duplicates.records`).
Later copies in the same shard leave nothing: they are known to the shard alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preprocessing.documents import read_batches
from preprocessing.duplicates import NearConfig
from preprocessing.duplicates.minhash import algorithm, band_keys, signatures
from preprocessing.duplicates.records import (
    BAND_RECORD_BYTES,
    BAND_RECORDS,
    ID_RECORD_BYTES,
    ID_RECORDS,
    RUN,
    SIGNATURE_ROWS,
    RunWriter,
    binary_column,
    binary_rows,
    signature_schema,
)
from preprocessing.settings import Preparation
from preprocessing.stage import DigestedInputs, Made
from preprocessing.storage import Manifest, manifest_digest, shard_name, write_shard
from preprocessing.texts import Texts


@dataclass(frozen=True)
class Task:
    """One shard of documents, the ``number``-th of its manifest."""

    source: Path
    directory: Path
    number: int
    near: NearConfig | None


class Signatures(DigestedInputs):
    """The stage, as :func:`preprocessing.stage.run_stage` sees it."""

    name = "signatures"

    def __init__(self, preparation: Preparation) -> None:
        self._source = preparation.cleaned_directory
        self._near = preparation.corpus.deduplicate.near
        self.directory = preparation.signatures_directory

    def configuration(self) -> Any:
        """What a signature is; the threshold counts only by the bands it asks for."""
        if self._near is None:
            return {"near": None}
        return {
            "near": {
                "algorithm": algorithm(),
                "ngram": self._near.ngram,
                "num_hashes": self._near.num_hashes,
                "bands": self._near.bands.count,
                "rows": self._near.bands.rows,
            }
        }

    def inputs(self) -> Mapping[str, str]:
        """The manifest of the documents."""
        return {"documents": manifest_digest(self._source)}

    def plan(self) -> Sequence[Task]:
        """One task a shard of documents, in the manifest's order."""
        return [
            Task(self._source / shard.name, self.directory, number, self._near)
            for number, shard in enumerate(Manifest.read(self._source).shards)
        ]

    def expected_bytes(self) -> int:
        """Exactly what distinct documents that all have words leave."""
        width = ID_RECORD_BYTES
        if self._near:
            width += 16 + 4 * self._near.num_hashes
            width += BAND_RECORD_BYTES * self._near.bands.count
        return width * Manifest.read(self._source).totals()["rows"]

    @property
    def function(self) -> Callable[[Task], Made]:
        """Write the records of one shard."""
        return sign

    def finish(self, made: Sequence[Made]) -> Mapping[str, Any]:
        """Nothing to add."""
        return {}


def sign(task: Task) -> Made:
    """Write the records of one shard of documents."""
    distinct = ~repeats(read_ids(task.source))
    near = task.near
    names = [shard_name(kind, task.number) for kind in ("ids", "bands", "signatures")]
    with contextlib.ExitStack() as stack:
        id_file = stack.enter_context(write_shard(task.directory / names[0], ID_RECORDS, RUN))
        ids = RunWriter(id_file, ID_RECORDS)
        if near:
            band_file = stack.enter_context(
                write_shard(task.directory / names[1], BAND_RECORDS, RUN)
            )
            bands = RunWriter(band_file, BAND_RECORDS)
            columns = signature_schema(near.num_hashes)
            signature_file = stack.enter_context(
                write_shard(task.directory / names[2], columns, SIGNATURE_ROWS)
            )
        start = 0
        for batch in read_batches(task.source):
            own = distinct[start : start + batch.num_rows]
            rows = np.arange(start, start + batch.num_rows, dtype=np.uint32)
            start += batch.num_rows
            halves = binary_rows(batch.column("id"), "<u8")[own]
            ids.add(halves[:, 0], halves[:, 1], rows[own])
            if near:
                found, present = signatures(Texts.of(batch.column("text")), near)
                present &= own
                keys = band_keys(found[present], near.bands)
                bands.add(keys.ravel(), np.repeat(rows[present], near.bands.count))
                signature_file.write(
                    pa.RecordBatch.from_arrays(
                        [batch.column("id"), binary_column(found)], schema=columns
                    )
                )
        ids.flush()
        shards = [id_file.finish(names[0], {})]
        if near:
            bands.flush()
            shards += [band_file.finish(names[1], {}), signature_file.finish(names[2], {})]
    return Made(tuple(shards))


def read_ids(path: Path) -> NDArray[np.uint64]:
    """The two halves ``[rows, 2]`` of the ids of a document shard."""
    parts = [binary_rows(batch.column("id"), "<u8") for batch in read_batches(path)]
    return np.concatenate([np.zeros((0, 2), np.uint64), *parts])


def repeats(ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which ids ``[rows, 2]`` equal an earlier one among them."""
    order = np.lexsort((ids[:, 1], ids[:, 0]))  # stable: the first one stays first
    ascending = ids[order]
    later = np.zeros(len(ids), np.bool_)
    later[order[1:]] = (ascending[1:] == ascending[:-1]).all(axis=1)
    return later
