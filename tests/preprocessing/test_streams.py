"""Windows of documents laid end to end, and the order in which streams read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from corpora import ListStore, make_text, prepare_config, run_stages, write_documents
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.building import gather_rows
from preprocessing.corruption import SpecialIds
from preprocessing.layouts import StreamsConfig
from preprocessing.layouts.base import FRAMES, Cut, Material
from preprocessing.order import StreamOrder
from preprocessing.rows import RowSet
from preprocessing.storage import InputError
from preprocessing.tokens import TokenStore

SEPARATOR = 7
SPECIAL = SpecialIds(size=1000, pad=0, start=6, separator=SEPARATOR)
DOCUMENTS = st.lists(
    st.lists(st.lists(st.integers(10, 999), min_size=1, max_size=9), min_size=1, max_size=4),
    max_size=8,
)


def cut_streams(store: ListStore, length: int, unit: str = "document", frame: str = "sep") -> Cut:
    config = StreamsConfig(kind="streams", unit=unit)
    documents = range(store.num_documents)
    return config.cut(Material(store, documents, length, FRAMES[frame], seed=0, copy=0))


def windows(store: ListStore, cut: Cut) -> list[list[int]]:
    members = [[index] for index in range(len(cut.ids))]
    sequences = gather_rows(store, cut, members, SPECIAL, 0).sequences
    return [
        sequences.tokens[begin:end].tolist()
        for begin, end in zip(sequences.offsets[:-1], sequences.offsets[1:], strict=True)
    ]


def test_the_worked_example() -> None:
    store = ListStore([[[11, 12], [13, 14]], [[15, 16, 17, 18, 19]]])
    cut = cut_streams(store, 4)
    assert windows(store, cut) == [[11, 12, 13, 14], [SEPARATOR, 15, 16, 17]]
    assert cut.left_out == 3
    by_sentence = cut_streams(store, 4, "sentence")
    assert windows(store, by_sentence) == [
        [11, 12, SEPARATOR, 13],
        [14, SEPARATOR, 15, 16],
        [17, 18, 19, SEPARATOR],
    ]
    assert by_sentence.left_out == 0


@given(
    DOCUMENTS,
    st.integers(1, 12),
    st.sampled_from(["document", "sentence"]),
    st.sampled_from(["sep", "none"]),
)
def test_windows_are_what_a_plain_loop_cuts(
    documents: list[list[list[int]]], length: int, unit: str, frame: str
) -> None:
    text: list[int] = []
    owners: list[int] = []
    for number, document in enumerate(documents):
        for index, sentence in enumerate(document):
            text += sentence
            if frame == "sep" and (unit == "sentence" or index == len(document) - 1):
                text.append(SEPARATOR)
        owners += [number] * (len(text) - len(owners))
    store = ListStore(documents)
    cut = cut_streams(store, length, unit, frame)
    count = len(text) // length
    assert windows(store, cut) == [text[n * length : (n + 1) * length] for n in range(count)]
    assert cut.lengths.tolist() == cut.first_lengths.tolist() == [length] * count
    assert cut.left_out == len(text) - count * length
    begun = [owners[n * length] for n in range(count)]
    expected = [(owner << 20) | begun[:n].count(owner) for n, owner in enumerate(begun)]
    assert cut.ids.tolist() == expected


def test_a_frame_around_windows_is_refused() -> None:
    with pytest.raises(InputError, match="use frame 'sep' or 'none'"):
        cut_streams(ListStore([[[11, 12]]]), 4, frame="cls_sep")


def test_rows_of_shards_hold_the_text_in_order(tmp_path: Path) -> None:
    write_documents(tmp_path / "raw" / "text.txt", make_text(150))
    streams = {
        "length": 16,
        "layout": {"kind": "streams"},
        "frame": "sep",
        "corruption": {"kind": "causal"},
    }
    preparation = prepare_config(tmp_path, examples={"streams": streams})
    run_stages(preparation)
    rows = RowSet(preparation.examples_directory("streams"), "train", seed=1)
    read = rows.read(0, np.arange(rows.num_rows[0])).sequences.tokens
    store, text = TokenStore(preparation.tokens_directory, "train"), []
    assert len(store.shard_ranges) > 1
    left_out = 0
    for documents in store.shard_ranges:
        shard = [token for one in documents for token in (*store.ids(one), rows.special.separator)]
        whole = len(shard) // 16 * 16
        text += shard[:whole]
        left_out += len(shard) - whole
    assert read.tolist() == text
    assert rows.manifest.totals("train/copy-000")["left_out"] == left_out


def test_streams_read_segments_from_their_first_row_to_their_last() -> None:
    order = StreamOrder((8,), 3, seed=1, phase=0)
    (first, rows), (second, more) = order.locate(np.arange(12))
    assert (first, rows.tolist()) == (0, [4, 0, 2, 5, 1, 3])
    assert (second, more.tolist()) == (1, [1, 5, 3, 2, 6, 4])
    begins = [order.begins(position) for position in (0, 3, 6, 9, 12)]
    assert begins == [True, False, True, False, True]


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=3),
    st.integers(1, 40),
    st.integers(0, 2**31),
)
def test_every_epoch_reads_whole_segments_of_equal_length(
    rows_per_copy: list[int], streams: int, seed: int
) -> None:
    rows_per_copy = [max(rows, streams) for rows in rows_per_copy]
    order = StreamOrder(tuple(rows_per_copy), streams, seed, phase=1)
    turns = [rows // streams for rows in rows_per_copy]
    located = order.locate(np.arange(sum(turns) * streams))
    assert [epoch for epoch, _ in located] == list(range(len(turns)))
    first = 0
    for (_, rows), length, available in zip(located, turns, rows_per_copy, strict=True):
        table = rows.reshape(length, streams)
        assert (np.diff(table, axis=0) == 1).all()  # each stream goes on
        begin = int(rows.min())
        assert sorted(rows.tolist()) == list(range(begin, begin + length * streams))
        assert begin + length * streams <= available
        begins = [order.begins((first + turn) * streams) for turn in range(length)]
        assert begins == [turn == 0 for turn in range(length)]
        first += length


def test_epochs_deal_other_segments_and_leave_out_other_rows() -> None:
    order = StreamOrder((107,), 10, seed=3, phase=0)
    firsts = [rows[:10].tolist() for _, rows in order.locate(np.arange(100 * 40))]
    assert len({tuple(rows) for rows in firsts}) == 40
    assert {min(rows) for rows in firsts} == set(range(8))


def test_a_position_is_found_without_the_others() -> None:
    order = StreamOrder((10**12 + 7,), 4096, seed=3, phase=0)
    far = 10**15 + np.arange(3)
    assert np.concatenate([rows for _, rows in order.locate(far)]).tolist() == [
        int(order.locate(np.array([position]))[0][1][0]) for position in far
    ]


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="5 rows for 6 streams"):
        StreamOrder((5,), 6, seed=0, phase=0)
