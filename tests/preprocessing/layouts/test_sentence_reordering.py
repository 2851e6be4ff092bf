import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from corpora import ListStore, make_text, prepare_config, run_stages, write_documents
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.layouts import LayoutConfig, SentenceReorderingConfig
from preprocessing.layouts.base import FRAMES, Cut, Material
from preprocessing.layouts.sentence_reordering import first_class, order_of, paragraphs
from preprocessing.rows import RowSet

M3 = SentenceReorderingConfig(kind="sentence_reordering")
ORDERS = ["0", "01", "10", "012", "021", "102", "120", "201", "210"]


def store(documents: list[list[int]]) -> ListStore:
    """Documents by the lengths of their sentences; a token tells its place in its document."""
    made = []
    for lengths in documents:
        tokens = iter(range(1, sum(lengths) + 1))
        made.append([[next(tokens) for _ in range(length)] for length in lengths])
    return ListStore(made)


def cut(config: SentenceReorderingConfig, documents: list[list[int]], length: int, **keys) -> Cut:
    frame = FRAMES["cls_sep"]
    return config.cut(
        Material(
            store(documents), range(len(documents)), length, frame, **{"seed": 1, "copy": 0} | keys
        )
    )


def shown(cut: Cut, number: int) -> list[tuple[int, int]]:
    own = slice(*cut.offsets[number : number + 2])
    return list(zip(cut.pieces.starts[own].tolist(), cut.pieces.stops[own].tolist(), strict=True))


def test_classes_are_numbered_as_the_table_says() -> None:
    named = [
        "".join(map(str, order_of(count, rank)))
        for count in (1, 2, 3)
        for rank in range(math.factorial(count))
    ]
    assert named == ORDERS
    assert [first_class(count) for count in (1, 2, 3, 4, 5)] == [0, 1, 3, 9, 33]
    assert M3.num_classes == 9
    four = [tuple(order_of(4, rank)) for rank in range(24)]
    assert four == sorted(itertools.permutations(range(4)))


def test_worked_example() -> None:
    # a b | c | d e f | g as in the docstring
    for copy in range(200):
        made = cut(M3, [[2, 1, 3, 1]], 12, copy=copy)
        assert len(made.ids) == 1
        if shown(made, 0) == [(2, 6), (6, 7), (0, 2)]:
            break
    else:
        pytest.fail("that order never came")
    assert made.labels.tolist() == [6]
    assert made.lengths.tolist() == [1 + 7 + 3]
    assert made.first_lengths.tolist() == [1 + 4 + 1]


@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=1, max_size=4),
    st.integers(8, 30),
    st.integers(2, 4),
    st.integers(0, 5),
)
def test_segments_put_in_order_are_the_document(
    documents: list[list[int]], length: int, segments: int, copy: int
) -> None:
    config = SentenceReorderingConfig(kind="sentence_reordering", max_segments=segments)
    made = cut(config, documents, length, copy=copy)
    assert (made.lengths <= length).all()
    assert len(set(made.ids.tolist())) == len(made.ids)
    rebuilt: dict[int, list[int]] = {number: [] for number in range(len(documents))}
    for number in range(len(made.ids)):
        pieces, label = shown(made, number), int(made.labels[number])
        count = len(pieces)
        assert first_class(count) <= label < first_class(count + 1)
        order = order_of(count, label - first_class(count))
        put_back = [pieces[order.index(place)] for place in range(count)]
        assert all(a[1] == b[0] for a, b in itertools.pairwise(put_back)), "one paragraph"
        document = int(made.ids[number]) >> 20
        if max(documents[document]) <= length - 1 - segments:
            borders = {0, *np.cumsum(documents[document]).tolist()}
            assert {place for span in put_back for place in span} <= borders
        rebuilt[document] += [token for start, stop in put_back for token in range(start, stop)]
    assert [len(rebuilt[n]) for n in rebuilt] == [sum(lengths) for lengths in documents]
    assert all(tokens == list(range(len(tokens))) for tokens in rebuilt.values())


def test_paragraphs_are_filled_and_long_sentences_cut() -> None:
    found = [own.tolist() for own in paragraphs(np.array([3, 4, 2, 25, 1]), 10)]
    assert found == [[0, 3, 7, 9], [9, 19], [19, 29], [29, 34, 35]]
    assert list(paragraphs(np.array([], np.int32), 10)) == []


def test_classes_have_the_shares_of_uniform_segments_and_orders() -> None:
    count = 9000
    made = cut(M3, [[2] * 6] * count, 16)
    found = np.bincount(made.labels, minlength=9)
    assert found.sum() == count
    expected = count / 3 / np.array([1, 2, 2, 6, 6, 6, 6, 6, 6])
    assert (np.abs(found - expected) < 4 * np.sqrt(expected)).all()
    # Of two segments, every border between sentences is as likely as any other.
    first = made.pieces.stops[made.offsets[:-1]][made.labels == 1]
    borders = np.bincount(first // 2, minlength=6)[1:]
    assert (np.abs(borders - first.size / 5) < 4 * math.sqrt(first.size / 5)).all()
    assert (cut(M3, [[2]] * 20, 16).labels == 0).all()
    two = np.bincount(cut(M3, [[2, 2]] * 4000, 16).labels, minlength=9)
    assert two[3:].sum() == 0
    assert abs(two[0] - 2000) < 4 * math.sqrt(1000)


def test_a_document_is_shuffled_alike_in_any_company_and_anew_in_each_copy() -> None:
    documents = [[2, 3, 4, 2], [5, 1, 1], [3, 3, 3, 3, 3]]
    whole, alone = (
        M3.cut(Material(store(documents), part, 16, FRAMES["cls_sep"], seed=1, copy=0))
        for part in (range(3), range(1, 2))
    )
    index = whole.ids.tolist().index(int(alone.ids[0]))
    assert shown(whole, index) == shown(alone, 0)
    assert whole.labels[index] == alone.labels[0]
    orders = {tuple(cut(M3, documents, 16, copy=copy).labels.tolist()) for copy in range(6)}
    assert len(orders) > 3


def test_more_than_four_segments_are_refused() -> None:
    with pytest.raises(ValueError, match="less than or equal to 4"):
        SentenceReorderingConfig(kind="sentence_reordering", max_segments=5)


def test_rows_carry_segments_and_classes(tmp_path: Path) -> None:
    assert "SentenceReorderingConfig" in str(LayoutConfig)
    write_documents(tmp_path / "raw" / "a.txt", make_text(60))
    examples = {
        mode: {
            "length": 32,
            "layout": {"kind": "sentence_reordering"},
            "pack": True,
            "corruption": {"kind": "masked"},
            "mode": mode,
            "copies": 2,
        }
        for mode in ("static", "dynamic")
    }
    preparation = prepare_config(tmp_path, examples=examples)
    run_stages(preparation)
    static, dynamic = (
        RowSet(preparation.examples_directory(mode), "train", seed=preparation.seed)
        for mode in ("static", "dynamic")
    )
    assert dynamic.shape.label == "sentence_reordering"
    scheme = preparation.examples["dynamic"].corruption
    for epoch in range(2):
        rows = np.arange(dynamic.num_rows[epoch])
        one, other = (rowset.arrays(scheme, rows, epoch=epoch) for rowset in (static, dynamic))
        for name, values in one.named().items():
            assert (values == other.named()[name]).all(), name
        targets = one.targets["sentence_reordering"]
        labels = targets.labels[targets.labels >= 0]
        assert set(labels.tolist()) <= set(range(9))
        assert len(set(labels.tolist())) > 5
        places = targets.indices[targets.labels >= 0]
        assert (one.positions.reshape(-1)[places] == 0).all()
