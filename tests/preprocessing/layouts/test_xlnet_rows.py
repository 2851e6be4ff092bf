"""XLNet's rows against the reference's loop over a running text, driven by the same draws."""

import math
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from corpora import ListStore, make_text, prepare_config, run_stages, write_documents
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.schema import ConfigError
from preprocessing.building import gather_rows
from preprocessing.corruption import SpecialIds
from preprocessing.draws import integers, sequence_keys, uniform
from preprocessing.layouts import XLNetConfig
from preprocessing.layouts.base import FRAMES, Material
from preprocessing.marks import WORD
from preprocessing.order import StreamOrder
from preprocessing.rows import RowSet
from preprocessing.storage import InputError
from preprocessing.tokenizers.specials import recognise

XLNET = XLNetConfig(kind="xlnet")
END, SEP, CLS = 60_000, 60_001, 60_002
SPECIAL = SpecialIds(size=60_003, start=CLS, separator=SEP, end=END)
Documents = list[list[list[int]]]


class MarkedStore(ListStore):
    """Every even token begins a word."""

    def word_starts(self, document: int) -> np.ndarray:
        return self.ids(document) % 2 == 0


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


def rows_of(
    documents: Documents,
    length: int,
    config: XLNetConfig = XLNET,
    *,
    seed: int = 1,
    copy: int = 0,
    only: range | None = None,
    special: SpecialIds = SPECIAL,
):
    """``(tokens, id, first length, backward)`` of every row."""
    store = MarkedStore(documents)
    cut = config.cut(
        Material(
            store,
            range(len(documents)) if only is None else only,
            length,
            FRAMES["sep_cls"],
            seed=seed,
            copy=copy,
        )
    )
    rows = gather_rows(store, cut, [[index] for index in range(len(cut.ids))], special, WORD)
    own = rows.sequences
    assert (own.marks == (own.tokens < END) * (own.tokens % 2 == 0)).all()
    return [
        (
            own.tokens[own.offsets[row] : own.offsets[row + 1]].tolist(),
            int(own.ids[row]),
            int(own.first_lengths[row]),
            bool(own.backward[row]),
        )
        for row in range(len(own.ids))
    ]


@dataclass
class Draws:
    """The numbers that a row takes, in the places of the reference's generator."""

    key: np.ndarray

    def fraction(self) -> float:
        return float(uniform(self.key, 0, 0)[0])

    def choice(self, items: list[int]) -> int:
        return items[int(integers(self.key, 0, 1, len(items))[0])]

    def randint(self, low: int, high: int) -> int:
        return low + int(integers(self.key, 0, 2, high - low + 1)[0])


def split_a_and_b(
    data: list[int], sentences: list[int], begin: int, most: int, draws: Draws
) -> tuple[list[int], list[int]]:
    """``_split_a_and_b``: ``sentences`` names the sentence of each token."""
    size = len(data)
    end, cut_points = begin + 1, []
    while end < size:
        if sentences[end] != sentences[end - 1]:
            if end - begin >= most:
                break
            cut_points.append(end)
        end += 1
    a_end = draws.choice(cut_points) if cut_points else end
    if not cut_points or draws.fraction() < 0.5:
        wanted = max(1, most - (a_end - begin))
        b_begin = draws.randint(0, size - 1 - wanted)
        b_end = b_begin + wanted
        while b_begin > 0 and sentences[b_begin - 1] == sentences[b_begin]:
            b_begin -= 1
        while b_end < size and sentences[b_end - 1] == sentences[b_end]:
            b_end += 1
    else:
        b_begin, b_end = a_end, end
    while a_end - begin + b_end - b_begin > most:
        if a_end - begin > b_end - b_begin:
            a_end -= 1
        else:
            b_end -= 1
    return data[begin:a_end], data[b_begin:b_end]


def reference(documents: Documents, length: int, *, seed: int, copy: int):
    """Rows of both directions; documents' ends belong to their last sentences."""
    data, sentences, owners = [], [], []
    for number, document in enumerate(documents):
        for sentence in document:
            data += sentence
            sentences += [len(sentences)] * len(sentence)
            owners += [number] * len(sentence)
        data.append(END)
        sentences.append(sentences[-1])
        owners.append(number)
    found = []
    reused = length // 2
    most = length - reused - 3
    for backward in (False, True):
        if backward:
            data, sentences, owners = data[::-1], sentences[::-1], owners[::-1]
        seen: dict[int, int] = {}
        begin = 0
        while begin + reused + most <= len(data):
            owner = owners[begin]
            id = (owner << 20) | (2 * seen.get(owner, 0) + backward)
            seen[owner] = seen.get(owner, 0) + 1
            draws = Draws(sequence_keys(seed, "xlnet", copy, np.array([id])))
            a, b = split_a_and_b(data, sentences, begin + reused, most, draws)
            tokens = [*data[begin : begin + reused], *a, SEP, *b, SEP, CLS]
            assert len(tokens) == length
            found.append((tokens, id, reused + len(a) + 1, backward))
            begin += reused
    return found


SHAPES = st.lists(st.lists(st.integers(1, 25), min_size=1, max_size=12), min_size=1, max_size=6)


@given(SHAPES, st.integers(10, 48), st.integers(0, 2**32), st.integers(0, 3))
@settings(max_examples=200)
def test_rows_are_the_references_token_for_token(
    shape: list[list[int]], length: int, seed: int, copy: int
) -> None:
    documents = numbered(shape)
    rows = rows_of(documents, length, seed=seed, copy=copy)
    assert rows == reference(documents, length, seed=seed, copy=copy)
    assert len({id for _, id, *_ in rows}) == len(rows)


@given(SHAPES, st.integers(10, 30))
@settings(max_examples=50)
def test_each_row_goes_on_behind_the_reused_text_of_the_one_before(
    shape: list[list[int]], length: int
) -> None:
    documents = numbered(shape)
    text = [token for document in documents for token in [*chain(*document), END]]
    for backward in (False, True):
        rows = [tokens for tokens, *_, own in rows_of(documents, length) if own == backward]
        running = [token for tokens in rows for token in tokens[: length // 2]]
        expected = text[::-1] if backward else text
        assert running == expected[: len(running)]
        assert [row[length // 2] for row in rows] == expected[length // 2 :: length // 2][
            : len(rows)
        ]


def test_worked_example() -> None:
    documents = numbered([[4, 4, 2, 2, 5]])
    config = XLNetConfig(kind="xlnet", random_probability=0.0)
    found = {False: set(), True: set()}
    for seed in range(30):
        for tokens, *_, backward in rows_of(documents, 16, config, seed=seed):
            found[backward].add(tuple(tokens))
    assert found[False] == {
        (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, SEP, 10, 11, 12, SEP, CLS),
        (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, SEP, 12, 13, SEP, CLS),
    }
    assert found[True] == {(END, 16, 15, 14, 13, 12, 11, 10, 9, 8, SEP, 7, 6, 5, SEP, CLS)}


def test_512_tokens_are_256_reused_and_253_of_two_segments() -> None:
    documents = numbered([[17] * 200, [23] * 100])
    rows = rows_of(documents, 512)
    assert len(rows) == 2 * ((17 * 200 + 23 * 100 + 2 - 253) // 256)
    for tokens, _, first, _ in rows:
        assert len(tokens) == 512
        separators = [place for place, token in enumerate(tokens) if token == SEP]
        assert separators == [first - 1, 510]
        assert tokens[511] == CLS
        assert first > 257
    assert sum(backward for *_, backward in rows) == len(rows) / 2


def test_where_the_vocabulary_has_no_end_the_separator_stands_there() -> None:
    documents = numbered([[6, 6]] * 4)
    special = SpecialIds(size=60_003, start=CLS, separator=SEP)
    with_end, without = rows_of(documents, 16), rows_of(documents, 16, special=special)
    assert any(END in tokens for tokens, *_ in with_end)
    for (tokens, *_), (others, *_) in zip(with_end, without, strict=True):
        assert others == [SEP if token == END else token for token in tokens]


def test_share_of_random_segments() -> None:
    """Half of the rows, told by those that are others where none is random."""
    draw = np.random.default_rng(0)
    documents = numbered([draw.integers(3, 9, draw.integers(20, 60)).tolist() for _ in range(200)])
    usual = rows_of(documents, 64)
    in_order = rows_of(documents, 64, XLNetConfig(kind="xlnet", random_probability=0.0))
    random = [a != b for a, b in zip(usual, in_order, strict=True)]
    assert len(random) > 2000
    assert abs(np.mean(random) - 0.5) < 4 * 0.5 / math.sqrt(len(random))


def test_one_direction_alone_gives_the_same_forward_rows() -> None:
    documents = numbered([[5, 6, 7]] * 12)
    alone = rows_of(documents, 24, XLNetConfig(kind="xlnet", bidirectional=False))
    both = rows_of(documents, 24)
    assert alone == both[: len(both) // 2]
    assert not XLNetConfig(kind="xlnet", bidirectional=False).reads_backward()


def test_a_text_shorter_than_a_row_gives_none_and_a_row_too_short_says_so() -> None:
    assert rows_of(numbered([[5]]), 16) == []
    with pytest.raises(InputError, match="no room for two segments in 8 tokens"):
        rows_of(numbered([[50]]), 8)
    with pytest.raises(InputError, match="need separators; use frame 'sep_cls'"):
        XLNET.cut(Material(ListStore([]), range(0), 32, FRAMES["none"], seed=1, copy=0))


def test_rows_on_the_disk_go_on_in_order(tmp_path: Path) -> None:
    write_documents(tmp_path / "raw" / "a.txt", make_text(60))
    examples = {
        "xlnet": {
            "length": 32,
            "layout": {"kind": "xlnet"},
            "frame": "sep_cls",
            "corruption": {"kind": "permutation"},
        }
    }
    preparation = prepare_config(tmp_path, corpus={"shard_bytes": 65536}, examples=examples)
    run_stages(preparation)
    rows = RowSet(preparation.examples_directory("xlnet"), "train", seed=1)
    (count,) = rows.num_rows
    read = rows.read(0, np.arange(count)).sequences
    assert (read.lengths == 32).all()
    tokens = read.tokens.reshape(count, 32)
    assert (tokens[:, -1] == rows.special.start).all()
    assert (tokens[:, -2] == rows.special.separator).all()
    backward = read.backward
    assert backward.sum() * 2 == count
    # A begins where the reused text of the row ends, and so does the next row.
    following = np.flatnonzero(backward[1:] == backward[:-1])
    assert len(following) == count - 2
    assert (tokens[following, 16] == tokens[following + 1, 0]).all()
    # So do the rows that a stream reads: all but a few, and about as many in either direction.
    order = StreamOrder((count,), streams=4, seed=1, phase=0)
    turns = count // 4
    ((_, read_rows),) = order.locate(np.arange(4 * turns))
    now, then = read_rows[:-4], read_rows[4:]
    goes_on = tokens[now, 16] == tokens[then, 0]
    assert (goes_on == (backward[now] == backward[then])).all()
    assert (~goes_on).sum() <= 1
    assert abs(backward[read_rows].mean() - 0.5) <= 4 / count
    arrays = rows.arrays(preparation.examples["xlnet"].corruption, np.arange(4), epoch=0)
    assert arrays.channels.keys() == {"ranks", "directions"}
    assert (arrays.segment_ids[:, -1] == 2).all()


def test_the_end_of_documents_is_recognised_by_its_usual_name() -> None:
    assert recognise({"<eod>": 7, "<cls>": 3}.get, {}) == {"start": "<cls>", "end": "<eod>"}
    assert recognise({"<|end|>": 7}.get, {"end": "<|end|>"}) == {"end": "<|end|>"}


def test_words_are_not_sought_in_sequences_that_run_backward(tmp_path: Path) -> None:
    rows = {"length": 32, "frame": "sep_cls", "corruption": {"kind": "whole_word"}}
    backward = {"kind": "xlnet"}
    with pytest.raises(ConfigError, match=r"layout\.bidirectional=false"):
        prepare_config(tmp_path, examples={"rows": {**rows, "layout": backward}})
    forward = {"kind": "xlnet", "bidirectional": False}
    assert prepare_config(tmp_path, examples={"rows": {**rows, "layout": forward}})
