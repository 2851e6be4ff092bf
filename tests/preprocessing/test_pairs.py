"""Sentence pairs against the reference's loop, driven by the same draws."""

import math
from pathlib import Path

import numpy as np
import pytest
from corpora import ListStore, make_text, prepare_config, run_stages, write_documents
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.draws import bits, integers, sequence_keys, uniform
from preprocessing.layouts import BlocksConfig, PairsConfig
from preprocessing.layouts.base import FRAMES, Cut, Material, Spans, sequence_id
from preprocessing.rows import RowSet
from preprocessing.storage import InputError

PAIRS = PairsConfig(kind="pairs")
Instance = tuple[int, list[int], list[int], int]


def cut_pairs(
    config: PairsConfig, store: ListStore, documents: range, length: int, *, seed: int, copy: int
) -> Cut:
    return config.cut(Material(store, documents, length, FRAMES["cls_sep"], seed=seed, copy=copy))


def pieces(cut: Cut, which: int) -> Spans:
    """The first (0) or the second (1) piece of every pair."""
    return Spans(*(values[which::2] for values in vars(cut.pieces).values()))


class Draws:
    """The numbers that a sequence takes, in the places of the reference's generator."""

    def __init__(self, seed: int, copy: int, document: int, index: int) -> None:
        self.id = (document << 20) | index
        self.key = sequence_keys(seed, "pairs", copy, np.array([self.id]))

    def fraction(self, draw: int) -> float:
        return float(uniform(self.key, 0, draw)[0])

    def integer(self, draw: int, low: int, high: int) -> int:
        return low + int(integers(self.key, 0, draw, high - low + 1)[0])

    def heads(self, turn: int, draw: int) -> bool:
        return bool(int(bits(self.key, turn, draw)[0]) >> 63)


def reference(
    documents: list[list[list[int]]],
    document: int,
    max_length: int,
    *,
    seed: int,
    copy: int,
    short: float = 0.1,
) -> list[Instance]:
    """The loop of google-research/bert, told again: lists of tokens, one sentence at a time."""
    most = max_length - 3
    own = sequence_keys(seed, "pairs of document", copy, np.array([document]))
    target = most
    if uniform(own, 0, 0)[0] < short:
        target = 2 + int(integers(own, 0, 1, most - 1)[0])
    sentences = documents[document]
    instances: list[Instance] = []
    chunk: list[list[int]] = []
    place = 0
    while place < len(sentences):
        chunk.append(sentences[place])
        if place == len(sentences) - 1 or sum(map(len, chunk)) >= target:
            draws = Draws(seed, copy, document, len(instances))
            a_end = 1
            if len(chunk) >= 2:
                a_end = draws.integer(0, 1, len(chunk) - 1)
            a = [token for sentence in chunk[:a_end] for token in sentence]
            b: list[int] = []
            if len(chunk) == 1 or draws.fraction(1) < 0.5:
                label = 1
                wanted = target - len(a)
                other = document
                if len(documents) > 1:
                    other = draws.integer(2, 0, len(documents) - 2)
                    other += other >= document
                start = draws.integer(3, 0, len(documents[other]) - 1)
                for sentence in documents[other][start:]:
                    b += sentence
                    if len(b) >= wanted:
                        break
                place -= len(chunk) - a_end
            else:
                label = 0
                b = [token for sentence in chunk[a_end:] for token in sentence]
            turns = {4: 0, 5: 0}
            while len(a) + len(b) > most:
                longer, draw = (a, 4) if len(a) > len(b) else (b, 5)
                del longer[0 if draws.heads(turns[draw], draw) else -1]
                turns[draw] += 1
            instances.append((draws.id, a, b, label))
            chunk = []
        place += 1
    return instances


def instances_of(store: ListStore, cut: Cut) -> list[Instance]:
    found = []
    for index in range(len(cut.ids)):
        spans = cut.pieces
        a, b = (
            store.ids(int(spans.documents[piece]))[spans.starts[piece] : spans.stops[piece]]
            for piece in range(cut.offsets[index], cut.offsets[index + 1])
        )
        found.append((int(cut.ids[index]), a.tolist(), b.tolist(), int(cut.labels[index])))
    return found


def numbered(shape: list[list[int]]) -> list[list[list[int]]]:
    """Documents of sentences of the given lengths, every token different."""
    count = 0
    documents = []
    for lengths in shape:
        document = []
        for length in lengths:
            document.append(list(range(count, count + length)))
            count += length
        documents.append(document)
    return documents


SHAPES = st.lists(st.lists(st.integers(1, 25), min_size=1, max_size=12), min_size=1, max_size=5)


@given(SHAPES, st.integers(8, 48), st.integers(0, 2**32), st.integers(0, 3))
@settings(max_examples=300)
def test_pairs_are_the_references_token_for_token(
    shape: list[list[int]], length: int, seed: int, copy: int
) -> None:
    documents = numbered(shape)
    store = ListStore(documents)
    cut = cut_pairs(PAIRS, store, range(len(shape)), length, seed=seed, copy=copy)
    expected = [
        instance
        for document in range(len(shape))
        for instance in reference(documents, document, length, seed=seed, copy=copy)
    ]
    assert instances_of(store, cut) == expected
    assert (cut.lengths <= length).all()
    assert (pieces(cut, 0).lengths >= 1).all()
    assert (pieces(cut, 1).lengths >= 1).all()
    assert len(np.unique(cut.ids)) == len(cut.ids)


@given(SHAPES, st.integers(8, 30))
@settings(max_examples=50)
def test_a_document_is_cut_alike_whichever_task_cuts_it(
    shape: list[list[int]], length: int
) -> None:
    store = ListStore(numbered(shape))
    together = cut_pairs(PAIRS, store, range(len(shape)), length, seed=1, copy=0)
    alone = [
        instance
        for document in range(len(shape))
        for instance in instances_of(
            store, cut_pairs(PAIRS, store, range(document, document + 1), length, seed=1, copy=0)
        )
    ]
    assert instances_of(store, together) == alone


def test_worked_example_of_the_module() -> None:
    """Sentences of 3, 4, 2, 6 tokens, target 9: unused sentences come again after a random B."""
    documents = numbered([[3, 4, 2, 6], [5, 5]])
    store = ListStore(documents)
    config = PairsConfig(kind="pairs", short_probability=0.0)
    seen = set()
    for seed in range(60):
        first, second, *_ = instances_of(
            store, cut_pairs(config, store, range(1), 12, seed=seed, copy=0)
        )
        _, a, b, label = first
        if a == [0, 1, 2]:
            if label == 0:
                assert b == [3, 4, 5, 6, 7, 8]
                assert set(second[1]) <= set(range(9, 15)), "the next chunk starts at the 6"
            else:
                assert set(b) <= set(range(15, 25))
                assert 3 <= second[1][0] < 7, "the next chunk starts at the 4"
            seen.add(label)
    assert seen == {0, 1}


def test_share_of_random_pairs_and_of_short_documents() -> None:
    """Label 1: half of the chunks, and every chunk of one sentence. Short: a tenth."""
    draw = np.random.default_rng(0)
    shape = [draw.integers(3, 40, draw.integers(1, 12)).tolist() for _ in range(3000)]
    documents = numbered(shape)
    store = ListStore(documents)
    config = PairsConfig(kind="pairs", short_probability=0.0)
    cut = cut_pairs(config, store, range(3000), 64, seed=1, copy=0)
    owners = np.array([int(i) >> 20 for i in cut.ids])
    assert (pieces(cut, 1).documents[cut.labels == 1] != owners[cut.labels == 1]).all()
    assert (pieces(cut, 1).documents[cut.labels == 0] == owners[cut.labels == 0]).all()
    # A chunk is one sentence where A is its last sentence, or alone reaches the target: told by
    # going through the chunks as the labels say.
    single = 0
    position = 0
    ids, starts = cut.ids.tolist(), pieces(cut, 0).starts.tolist()
    for document, lengths in enumerate(shape):
        begin = index = 0
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        while begin < len(lengths):
            assert ids[position] == sequence_id(document, index)
            end = begin + 1
            while end < len(lengths) and bounds[end] - bounds[begin] < 61:
                end += 1
            single += end - begin == 1
            if cut.labels[position] == 0:
                begin = end
            else:
                following = position + 1 < len(ids) and ids[position + 1] == ids[position] + 1
                begin = (
                    int(np.searchsorted(bounds, starts[position + 1], side="right")) - 1
                    if following
                    else len(lengths)
                )
            position, index = position + 1, index + 1
    assert position == len(ids)
    count = len(ids)
    share, expected = (cut.labels == 1).mean(), 0.5 + 0.5 * single / count
    free = count - single  # only these are drawn
    assert abs(share - expected) < 4 * 0.5 * math.sqrt(free) / count
    short = np.mean(
        [
            uniform(sequence_keys(1, "pairs of document", 0, np.array([d])), 0, 0)[0] < 0.1
            for d in range(3000)
        ]
    )
    assert abs(short - 0.1) < 4 * math.sqrt(0.09 / 3000)
    usual = cut_pairs(PAIRS, store, range(3000), 64, seed=1, copy=0)
    changed = {int(i) >> 20 for i, *rest in {*instances_key(cut)} ^ {*instances_key(usual)}}
    assert abs(len(changed) / 3000 - 0.1) < 4 * math.sqrt(0.09 / 3000) + 0.02


def instances_key(cut: Cut) -> list[tuple[int, ...]]:
    columns = (
        cut.ids,
        pieces(cut, 0).starts,
        pieces(cut, 0).stops,
        pieces(cut, 1).documents,
        pieces(cut, 1).starts,
        pieces(cut, 1).stops,
    )
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_partners_and_their_starts_are_uniform() -> None:
    store = ListStore(numbered([[9] * 5 for _ in range(40)]))
    config = PairsConfig(kind="pairs", short_probability=0.0, random_probability=1.0)
    partners = np.zeros(40)
    starts = np.zeros(5)
    for copy in range(80):
        cut = cut_pairs(config, store, range(7, 8), 64, seed=1, copy=copy)
        partners += np.bincount(pieces(cut, 1).documents, minlength=40)
    for copy in range(10):
        cut = cut_pairs(config, store, range(40), 64, seed=1, copy=copy)
        kept = pieces(cut, 1).lengths > 0
        starts += np.bincount(pieces(cut, 1).starts[kept] // 9, minlength=5)
    assert partners[7] == 0, "a document is not its own partner"
    others = np.delete(partners, 7)
    expected = others.sum() / 39
    assert ((others - expected) ** 2 / expected).sum() < 38 + 4 * math.sqrt(2 * 38)
    assert (starts > 0).all()


def test_one_document_is_its_own_partner() -> None:
    store = ListStore(numbered([[4, 4, 4]]))
    cut = cut_pairs(PAIRS, store, range(1), 16, seed=1, copy=0)
    assert set(pieces(cut, 1).documents.tolist()) == {0}
    assert (cut.lengths <= 16).all()


def test_copies_are_laid_out_anew() -> None:
    store = ListStore(numbered([[5, 6, 7, 8] * 5 for _ in range(10)]))
    cuts = [cut_pairs(PAIRS, store, range(10), 32, seed=1, copy=copy) for copy in range(3)]
    assert len({str(instances_key(cut)) for cut in cuts}) == 3


def test_document_with_too_many_sentences_says_what_to_check() -> None:
    with pytest.raises(InputError, match=r"document 5 .* more than 1048576 .* corpus\.form"):
        sequence_id(5, 1 << 20)
    assert sequence_id(5, (1 << 20) - 1) == 6 * (1 << 20) - 1


# -- blocks ------------------------------------------------------------------------------------


@given(SHAPES, st.integers(8, 40))
def test_blocks_hold_every_token_once(shape: list[list[int]], length: int) -> None:
    store = ListStore(numbered(shape))
    blocks = BlocksConfig(kind="blocks")
    cut = blocks.cut(Material(store, range(len(shape)), length, FRAMES["cls_sep"], seed=1, copy=0))
    tokens = [
        token
        for document, start, stop in zip(*vars(cut.pieces).values(), strict=True)
        for token in store.ids(int(document))[start:stop].tolist()
    ]
    assert tokens == list(range(sum(map(sum, shape))))
    assert (cut.lengths <= length).all()
    assert (cut.lengths == cut.pieces.lengths + 2).all()
    assert (cut.num_pieces == 1).all()
    assert (cut.first_lengths == cut.lengths).all()
    assert (cut.labels == -1).all()


def test_worked_example_of_blocks() -> None:
    blocks, store = BlocksConfig(kind="blocks"), ListStore(numbered([[10]]))
    cut = blocks.cut(Material(store, range(1), 6, FRAMES["cls_sep"], seed=1, copy=0))
    spans = list(zip(cut.pieces.starts.tolist(), cut.pieces.stops.tolist(), strict=True))
    assert spans == [(0, 4), (4, 8), (8, 10)]
    assert cut.lengths.tolist() == [6, 6, 4]
    assert cut.ids.tolist() == [0, 1, 2]


# -- rows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [False, True])
def test_rows_of_pairs_have_the_format_of_the_reference(tmp_path: Path, pack: bool) -> None:
    """[CLS] A [SEP] B [SEP], segment 0 up to the first [SEP], 1 up to the second one."""
    write_documents(tmp_path / "raw" / "a.txt", make_text(60))
    examples = {
        "pairs": {
            "length": 40,
            "layout": {"kind": "pairs"},
            "pack": pack,
            "corruption": {"kind": "masked", "mask_probability": 0.0, "random_probability": 0.0},
        }
    }
    preparation = prepare_config(tmp_path, examples=examples)
    run_stages(preparation)
    rows = RowSet(preparation.examples_directory("pairs"), "train", seed=1)
    (count,) = rows.num_rows
    config = preparation.examples["pairs"].corruption
    arrays = rows.arrays(config, np.arange(count), epoch=0)
    special = rows.special
    asked = arrays.targets["next_sentence"]
    places, labels = asked.indices.tolist(), asked.labels.tolist()
    labelled = {place: label for place, label in zip(places, labels, strict=True) if label >= 0}
    sequences = 0
    for row in range(count):
        owners = arrays.sequence_ids[row]
        assert (np.diff(owners[owners > 0]) >= 0).all()
        assert (arrays.ids[row][owners == 0] == special.pad).all()
        assert not arrays.segment_ids[row][owners == 0].any()
        assert not arrays.positions[row][owners == 0].any()
        for owner in range(1, owners.max() + 1):
            (own,) = np.nonzero(owners == owner)
            ids, segments = arrays.ids[row][own], arrays.segment_ids[row][own]
            assert own.tolist() == list(range(own[0], own[-1] + 1))
            assert arrays.positions[row][own].tolist() == list(range(len(own)))
            assert ids[0] == special.start
            assert ids[-1] == special.separator
            (separators,) = np.nonzero(ids == special.separator)
            assert len(separators) == 2
            expected = [0] * (separators[0] + 1) + [1] * (len(own) - separators[0] - 1)
            assert segments.tolist() == expected
            assert 1 < separators[0] < separators[1] - 1, "neither side is empty"
            assert labelled.pop(row * 40 + int(own[0])) in (0, 1)
            sequences += 1
    assert not labelled
    assert sequences == rows.manifest.totals("train/copy-000")["sequences"]
    assert pack == (sequences > count)
