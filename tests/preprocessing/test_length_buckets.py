"""Rows of a few static lengths: who stands where, and what a loader finds there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import make_text, prepare_config, run_stages, write_documents

from configs.schema import ConfigError
from preprocessing.rows import RowSet, copy_split, split_of
from preprocessing.settings import Preparation
from preprocessing.storage import InputError, Manifest

BUCKETS = (8, 16, 32)
MASKED = {"length": 64, "layout": {"kind": "blocks"}, "corruption": {"kind": "masked"}}
SPANS = {
    **MASKED,
    "corruption": {"kind": "span_corruption"},
    "frame": "none",
    "decoder_length": 20,
}


def prepare(folder: Path, **examples: dict[str, Any]) -> Preparation:
    write_documents(folder / "raw" / "a.txt", make_text(120, sentences=12))
    return prepare_config(
        folder,
        tokenizer={"kind": "wordpiece", "vocab_size": 300, "sentinels": 20},
        examples=examples,
    )


def lengths(rows: RowSet) -> list[tuple[int, int]]:
    """Id and length of every sequence of the first copy."""
    read = rows.read(0, np.arange(rows.num_rows[0]))
    assert (np.bincount(read.row_of, minlength=read.num_rows) == 1).all(), "one sequence a row"
    return list(zip(read.sequences.ids.tolist(), read.sequences.lengths.tolist(), strict=True))


def test_every_sequence_stands_in_the_shortest_row_it_fits(tmp_path: Path) -> None:
    preparation = prepare(tmp_path, plain=MASKED, buckets=MASKED | {"buckets": list(BUCKETS)})
    run_stages(preparation)
    directory = preparation.examples_directory("buckets")
    plain = RowSet(preparation.examples_directory("plain"), "train", seed=1)
    found = []
    for bucket in (*BUCKETS, None):
        rows = RowSet(directory, "train", seed=1, bucket=bucket)
        length = bucket or 64
        assert rows.shape.length == length
        shorter = max((one for one in BUCKETS if one < length), default=0)
        own = lengths(rows)
        assert own, "this text has sequences of all lengths"
        assert all(shorter < size <= length for _, size in own)
        found += own
        arrays = rows.arrays(
            preparation.examples["buckets"].corruption, np.arange(len(own)), epoch=0
        )
        assert arrays.ids.shape == (len(own), length)
    assert sorted(found) == sorted(lengths(plain)), "none twice, none missing"

    manifest = Manifest.read(directory)
    assert manifest.totals("train/copy-000/length-00016")["slots"] % 16 == 0
    # Shorter rows have fewer targets, so their arrays are smaller, too.
    most = [manifest.facts["buckets"][str(one)]["max_targets"]["masked_lm"] for one in BUCKETS]
    assert most == sorted(most)
    assert most[-1] < manifest.facts["max_targets"]["masked_lm"]


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_a_sequence_is_the_same_in_a_bucket_as_in_a_long_row(tmp_path: Path, mode: str) -> None:
    own = SPANS | {"mode": mode}
    preparation = prepare(tmp_path, plain=own, buckets=own | {"buckets": list(BUCKETS)})
    run_stages(preparation)
    corruption = preparation.examples["plain"].corruption

    def sequences(rows: RowSet) -> dict[int, tuple[list[int], list[int]]]:
        every = np.arange(rows.num_rows[0])
        arrays = rows.arrays(corruption, every, epoch=0)
        assert arrays.decoder is not None
        ids = rows.read(0, every).sequences.ids.tolist()
        seen, said = (
            [side.ids[row][side.sequence_ids[row] > 0].tolist() for row in every.tolist()]
            for side in (arrays, arrays.decoder)
        )
        return dict(zip(ids, zip(seen, said, strict=True), strict=True))

    expected = sequences(RowSet(preparation.examples_directory("plain"), "train", seed=1))
    found = {}
    for bucket in (*BUCKETS, None):
        rows = RowSet(preparation.examples_directory("buckets"), "train", seed=1, bucket=bucket)
        assert rows.shape.decoder_length == (bucket or 64) * 20 // 64
        found |= sequences(rows)
    assert found == expected


def test_places_of_shards_are_read_as_they_are_written() -> None:
    for place in (("train", 0, None), ("held-out", 12, 512)):
        assert split_of(copy_split(*place)) == place


def test_a_length_that_is_not_there_is_named(tmp_path: Path) -> None:
    preparation = prepare(tmp_path, plain=MASKED, buckets=MASKED | {"buckets": [16]})
    run_stages(preparation)
    with pytest.raises(InputError, match="no rows of 32 tokens here, only 16, 64"):
        RowSet(preparation.examples_directory("buckets"), "train", seed=1, bucket=32)
    with pytest.raises(InputError, match="no rows of 16 tokens here, only 64"):
        RowSet(preparation.examples_directory("plain"), "train", seed=1, bucket=16)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"buckets": [32, 16]}, "ascending"),
        ({"buckets": [16, 64]}, "without length itself"),
        ({"buckets": [24]}, "divisors of length"),
        ({"buckets": [16], "pack": True}, "either buckets or pack"),
    ],
)
def test_buckets_that_make_no_sense_are_refused(
    tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        prepare(tmp_path, rows=MASKED | given)


def test_digests_do_not_change_where_there_are_none(tmp_path: Path) -> None:
    plain = prepare(tmp_path / "a", rows=MASKED).examples_directory("rows")
    none = prepare(tmp_path / "b", rows=MASKED | {"buckets": []}).examples_directory("rows")
    some = prepare(tmp_path / "c", rows=MASKED | {"buckets": [16]}).examples_directory("rows")
    assert plain.name == none.name != some.name
