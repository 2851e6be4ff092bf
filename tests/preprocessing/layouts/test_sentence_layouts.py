"""RoBERTa's FULL-SENTENCES and DOC-SENTENCES, ALBERT's sentence order: against plain loops."""

import math
from pathlib import Path

import numpy as np
import pytest
from corpora import ListStore, make_text, prepare_config, run_stages, write_documents
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.draws import bits, integers, sequence_keys, uniform
from preprocessing.layouts import DocSentencesConfig, FullSentencesConfig, SentenceOrderConfig
from preprocessing.layouts.base import FRAMES, Cut, FrameName, Material
from preprocessing.rows import RowSet

FULL = FullSentencesConfig(kind="full_sentences")
DOC = DocSentencesConfig(kind="doc_sentences")
ORDER = SentenceOrderConfig(kind="sentence_order")
FRAME_NAMES = st.sampled_from(["cls_sep", "sep_cls", "sep", "none"])
SHAPES = st.lists(st.lists(st.integers(1, 25), min_size=1, max_size=12), min_size=1, max_size=6)
Documents = list[list[list[int]]]


def numbered(shape: list[list[int]]) -> Documents:
    """Documents of sentences of the given lengths, every token different."""
    count, documents = 0, []
    for lengths in shape:
        document = []
        for length in lengths:
            document.append(list(range(count, count + length)))
            count += length
        documents.append(document)
    return documents


def cut_of(
    config, documents: Documents, length: int, frame: FrameName = "cls_sep", *, seed=1, copy=0
) -> Cut:
    store, own = ListStore(documents), range(len(documents))
    return config.cut(Material(store, own, length, FRAMES[frame], seed=seed, copy=copy))


def pieces_of(documents: Documents, cut: Cut) -> list[list[list[int]]]:
    """The tokens of every piece of every sequence."""
    store, pieces = ListStore(documents), cut.pieces
    return [
        [
            store.ids(int(pieces.documents[p]))[pieces.starts[p] : pieces.stops[p]].tolist()
            for p in range(cut.offsets[index], cut.offsets[index + 1])
        ]
        for index in range(len(cut.ids))
    ]


# -- full sentences ----------------------------------------------------------------------------


def gathered(
    documents: Documents, length: int, frame: FrameName, crossing: bool
) -> list[list[list[int]]]:
    """One sentence after the other, each in the row at hand or in a new one."""
    before, after, behind = FRAMES[frame].before, FRAMES[frame].after_each, FRAMES[frame].behind
    rows: list[list[list[int]]] = []
    for document in documents:
        new_document = True
        for sentence in document:
            most = length - before - after - behind
            for start in range(0, len(sentence), most):
                part = sentence[start : start + most]
                row = rows[-1] if rows and (crossing or not new_document) else None
                if row is not None:
                    grown = [*row, part] if new_document else [*row[:-1], row[-1] + part]
                    size = sum(len(piece) + after for piece in grown) + before + behind
                    if size <= length:
                        rows[-1] = grown
                        new_document = False
                        continue
                rows.append([part])
                new_document = False
    return rows


@given(SHAPES, st.integers(8, 48), FRAME_NAMES, st.booleans())
@settings(max_examples=200)
def test_rows_hold_as_many_whole_sentences_as_fit(
    shape: list[list[int]], length: int, frame: FrameName, crossing: bool
) -> None:
    documents = numbered(shape)
    cut = cut_of(FULL if crossing else DOC, documents, length, frame)
    rows = pieces_of(documents, cut)
    assert rows == gathered(documents, length, frame, crossing)
    assert [t for row in rows for piece in row for t in piece] == list(range(sum(map(sum, shape))))
    assert (cut.lengths <= length).all()
    assert (cut.first_lengths == cut.lengths).all(), "one segment"
    assert len(np.unique(cut.ids)) == len(cut.ids)
    begins = [int(cut.pieces.documents[first]) for first in cut.offsets[:-1]]
    assert [int(one) >> 20 for one in cut.ids] == begins
    if not crossing:
        assert all(len(row) == 1 for row in rows)
    sentence_ends = {sentence[-1] for document in documents for sentence in document}
    most = length - FRAMES[frame].around(1)
    for row in rows:
        whole = row[-1][-1] in sentence_ends
        assert whole or sum(map(len, row)) == most, "only what fills a row is cut"


def test_worked_examples() -> None:
    documents = numbered([[4, 3], [2, 5]])
    first, second, third, fourth = (sentence for document in documents for sentence in document)
    cut = cut_of(FULL, documents, 12)
    assert pieces_of(documents, cut) == [[first + second, third], [fourth]]
    assert cut.lengths.tolist() == [1 + 7 + 1 + 2 + 1, 1 + 5 + 1]
    assert cut.ids.tolist() == [0, 1 << 20]
    cut = cut_of(DOC, documents, 12)
    assert pieces_of(documents, cut) == [[first + second], [third + fourth]]
    assert cut.ids.tolist() == [0, 1 << 20]


def test_a_sentence_longer_than_a_row_is_cut() -> None:
    documents = numbered([[2, 25, 3]])
    cut = cut_of(DOC, documents, 12)
    assert [len(piece) for (piece,) in pieces_of(documents, cut)] == [2, 10, 10, 8]


def test_no_documents_no_rows() -> None:
    for config in (FULL, DOC, ORDER):
        cut = cut_of(config, [], 16)
        assert len(cut.ids) == len(cut.lengths) == len(cut.labels) == 0


# -- sentence order ----------------------------------------------------------------------------


def swapped_pairs(
    documents: Documents, length: int, *, seed: int, copy: int, short: float = 0.1
) -> list[tuple[int, list[int], list[int], int]]:
    """The loop of google-research/albert, told again; chunks of one sentence are left out."""
    most = length - 3
    found = []
    for number, sentences in enumerate(documents):
        own = sequence_keys(seed, "sentence_order of document", copy, np.array([number]))
        target = most
        if uniform(own, 0, 0)[0] < short:
            target = 2 + int(integers(own, 0, 1, most - 1)[0])
        chunk: list[list[int]] = []
        index = 0
        for place, sentence in enumerate(sentences):
            chunk.append(sentence)
            if place < len(sentences) - 1 and sum(map(len, chunk)) < target:
                continue
            if len(chunk) > 1:
                id = (number << 20) | index
                index += 1
                key = sequence_keys(seed, "sentence_order", copy, np.array([id]))
                a_end = 1 + int(integers(key, 0, 0, len(chunk) - 1)[0])
                a, b = sum(chunk[:a_end], []), sum(chunk[a_end:], [])  # noqa: RUF017
                label = int(uniform(key, 0, 1)[0] < 0.5)
                if label:
                    a, b = b, a
                turns = {4: 0, 5: 0}
                while len(a) + len(b) > most:
                    longer, draw = (a, 4) if len(a) > len(b) else (b, 5)
                    del longer[0 if int(bits(key, turns[draw], draw)[0]) >> 63 else -1]
                    turns[draw] += 1
                found.append((id, a, b, label))
            chunk = []
    return found


@given(SHAPES, st.integers(8, 48), st.integers(0, 2**32), st.integers(0, 3))
@settings(max_examples=200)
def test_pairs_are_the_references_without_chunks_of_one_sentence(
    shape: list[list[int]], length: int, seed: int, copy: int
) -> None:
    documents = numbered(shape)
    cut = cut_of(ORDER, documents, length, seed=seed, copy=copy)
    found = [
        (int(id), *pair, int(label))
        for id, pair, label in zip(cut.ids, pieces_of(documents, cut), cut.labels, strict=True)
    ]
    assert found == swapped_pairs(documents, length, seed=seed, copy=copy)
    assert (cut.lengths <= length).all()
    for _, a, b, label in found:
        assert a
        assert b
        assert (a[0] > b[0]) == label


def test_worked_example_of_sentence_order() -> None:
    documents = numbered([[3, 4, 2, 6, 5]])
    one, two, three, four, five = documents[0]
    config = SentenceOrderConfig(kind="sentence_order", short_probability=0.0)
    found = set()
    for seed in range(60):
        cut = cut_of(config, documents, 12, seed=seed)
        for (a, b), label in zip(pieces_of(documents, cut), cut.labels.tolist(), strict=True):
            found.add((label, tuple(a), tuple(b)))
    assert (0, tuple(one), tuple(two + three)) in found
    assert (1, tuple(two + three), tuple(one)) in found
    assert (0, tuple(one + two), tuple(three)) in found, "split after 2"
    lost = {(label, a, b) for label, a, b in found if set(a + b) & set(four)}
    assert all(len(a) + len(b) == 9 for _, a, b in lost), "6 and 5 lose two tokens"
    assert all(set(a) <= set(five) for label, a, _ in lost if label)


def test_half_of_the_pairs_are_swapped_and_a_tenth_of_the_documents_short() -> None:
    draw = np.random.default_rng(0)
    documents = numbered([draw.integers(3, 20, draw.integers(2, 30)).tolist() for _ in range(2000)])
    config = SentenceOrderConfig(kind="sentence_order", short_probability=0.0)
    cut = cut_of(config, documents, 64)
    count = len(cut.ids)
    assert count > 5000
    assert abs(cut.labels.mean() - 0.5) < 4 * 0.5 / math.sqrt(count)
    assert set(cut_of(ORDER, documents, 64).ids.tolist()) != set(cut.ids.tolist())
    never = SentenceOrderConfig(kind="sentence_order", swap_probability=0.0)
    assert not cut_of(never, documents[:50], 64).labels.any()
    copies = [cut_of(ORDER, documents[:50], 64, copy=copy) for copy in range(3)]
    assert len({str(one.pieces.starts.tolist()) for one in copies}) == 3


@pytest.mark.parametrize("pack", [False, True])
def test_rows_of_sentence_order_have_labels(tmp_path: Path, pack: bool) -> None:
    write_documents(tmp_path / "raw" / "a.txt", make_text(80))
    examples = {
        "order": {
            "length": 40,
            "layout": {"kind": "sentence_order"},
            "pack": pack,
            "corruption": {"kind": "masked"},
        }
    }
    preparation = prepare_config(tmp_path, examples=examples)
    run_stages(preparation)
    rows = RowSet(preparation.examples_directory("order"), "train", seed=1)
    (count,) = rows.num_rows
    arrays = rows.arrays(preparation.examples["order"].corruption, np.arange(count), epoch=0)
    asked = arrays.targets["sentence_order"]
    real = asked.labels >= 0
    assert real.sum() == sum(int(row.max()) for row in arrays.sequence_ids)
    assert set(asked.labels[real].tolist()) == {0, 1}
    totals = rows.manifest.totals("train/copy-000")
    assert [totals["label_0"], totals["label_1"]] == np.bincount(asked.labels[real]).tolist()
    assert "pairs_random" not in totals
    assert (arrays.ids.reshape(-1)[asked.indices[real]] == rows.special.start).all()
    assert set(arrays.segment_ids.reshape(-1).tolist()) == {0, 1}
