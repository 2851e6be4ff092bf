"""Records of duplicates without some documents: their rows go, and later rows move up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preprocessing.documents import read_batches
from preprocessing.duplicates.records import (
    BAND_RECORDS,
    DROPS,
    ID_RECORDS,
    RUN,
    SIGNATURE_ROWS,
    RunWriter,
)
from preprocessing.storage import Manifest, Shard, write_shard


def without_records(
    staged: Path, directory: Path, manifest: Manifest, rows: Mapping[int, NDArray[np.int64]]
) -> Manifest:
    """Stage the records of the document shards concerned, without and with later rows moved up.

    Args:
        staged: the staging folder.
        directory: of signatures, or of matches.
        manifest: of this directory.
        rows: ascending rows that go, by the number of the document shard.
    """
    shards = []
    for shard in manifest.shards:
        if shard.split == "drops":
            shards.append(_without_drops(staged, directory, shard, rows))
        elif shard.number in rows:
            shards.append(_without_rows(staged, directory, shard, rows[shard.number]))
        else:
            shards.append(shard)
    return replace(manifest, shards=tuple(shards))


def _without_rows(staged: Path, directory: Path, shard: Shard, rows: NDArray[np.int64]) -> Shard:
    target = staged / shard.name
    batches = list(read_batches(directory / shard.name))
    if shard.split == "signatures":
        with write_shard(target, batches[0].schema, SIGNATURE_ROWS) as writer:
            for number, batch in enumerate(batches):
                places = number * SIGNATURE_ROWS + np.arange(batch.num_rows)
                writer.write(batch.filter(pa.array(~np.isin(places, rows))))
            return writer.finish(shard.name, {})
    schema = ID_RECORDS if shard.split == "ids" else BAND_RECORDS
    with write_shard(target, schema, RUN) as writer:
        runs = RunWriter(writer, schema)
        for batch in batches:
            columns = {name: batch.column(name).to_numpy() for name in schema.names}
            stays = ~np.isin(columns["row"], rows)
            columns["row"] = _moved_up(columns["row"], rows)
            runs.add(*(column[stays] for column in columns.values()))
        runs.flush()
        return writer.finish(shard.name, {})


def _without_drops(
    staged: Path, directory: Path, shard: Shard, rows: Mapping[int, NDArray[np.int64]]
) -> Shard:
    batches = list(read_batches(directory / shard.name))
    table = pa.Table.from_batches(batches, DROPS)
    numbers, places = table["shard"].to_numpy(), table["row"].to_numpy().copy()
    stays = np.ones(len(places), np.bool_)
    for number, own in rows.items():
        mine = numbers == number
        stays[mine] = ~np.isin(places[mine], own)
        places[mine] = _moved_up(places[mine], own)
    if np.array_equal(places, table["row"].to_numpy()) and stays.all():
        return shard
    table = table.set_column(1, DROPS.field("row"), pa.array(places)).filter(pa.array(stays))
    with write_shard(staged / shard.name, DROPS, RUN) as writer:
        for batch in table.to_batches():
            writer.write(batch)
        return writer.finish(shard.name, {})


def _moved_up(places: NDArray[np.uint32], rows: NDArray[np.int64]) -> NDArray[np.uint32]:
    return places - np.searchsorted(rows, places).astype(np.uint32)
