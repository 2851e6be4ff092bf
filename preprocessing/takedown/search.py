"""Which documents a request is about: every copy, before and after cleaning.

A text that is taken down is gone wherever it stands. Cleaning changes texts and with them ids, but
not the place (file and offset) a document was read from; so ids lead to places, places to the ids
that stand there in other directories, and these to further copies, until nothing new is found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.documents import read_batches
from preprocessing.storage import Manifest

Place = tuple[str, int]


def find_documents(
    directories: Sequence[Path], ids: set[bytes], places: set[Place]
) -> set[tuple[bytes, Place]]:
    """All that is to go, as pairs of an id and a place; ``ids`` and ``places`` grow with it.

    Args:
        directories: of documents, cleaned or not.
        ids: of documents to begin with.
        places: of documents to begin with.
    """
    found: set[tuple[bytes, Place]] = set()
    while True:
        before = len(ids), len(places)
        for directory in directories:
            for identity, place in _scan(directory, ids, places):
                found.add((identity, place))
                ids.add(identity)
                places.add(place)
        if (len(ids), len(places)) == before:
            return found


def _scan(directory: Path, ids: set[bytes], places: set[Place]) -> Iterator[tuple[bytes, Place]]:
    wanted = pa.array(sorted(ids), pa.binary(16))
    offsets = pa.array(sorted({offset for _, offset in places}), pa.int64())
    for shard in Manifest.read(directory).shards:
        for batch in read_batches(directory / shard.name):
            own = pc.is_in(batch.column("id"), value_set=wanted)
            near = pc.is_in(batch.column("offset"), value_set=offsets)
            rows = np.flatnonzero(pc.or_(own, near).to_numpy(zero_copy_only=False))
            for row in batch.select(["id", "source", "offset"]).take(pa.array(rows)).to_pylist():
                place = (row["source"], row["offset"])
                if row["id"] in ids or place in places:
                    yield row["id"], place
