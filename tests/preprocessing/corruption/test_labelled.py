import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import make_text, prepare_config, run_stages, write_documents
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from schemes import (
    CONTEXT,
    SPECIAL,
    apart,
    check_bounds,
    check_nothing,
    check_purity,
    framed,
    from_lists,
    restored,
)

from preprocessing.corruption import Context, LabelledConfig, MaskedConfig, Sequences, SpecialIds
from preprocessing.corruption.units import UnitsConfig
from preprocessing.marks import CAPITAL, RECURS, WORD
from preprocessing.rows import RowSet
from preprocessing.storage import InputError
from preprocessing.tokens import TokenStore

LABELLED = LabelledConfig(kind="labelled")
RESERVED = (SPECIAL.pad, SPECIAL.start, SPECIAL.separator)


def marked(lengths: list[int]) -> Sequences:
    """Framed sequences with every combination of the two marks, none on special tokens."""
    sequences = framed(lengths)
    marks = np.arange(len(sequences.tokens)) * 7 % 4 * CAPITAL | WORD
    marks[np.isin(sequences.tokens, RESERVED)] = 0
    return replace(sequences, marks=marks.astype(np.uint8))


def test_worked_example() -> None:
    words = ["[CLS]", "new", "york", "is", "big", ".", "new", "[SEP]"]
    ids = [SPECIAL.start, 10, 11, 12, 13, 14, 10, SPECIAL.separator]
    given = from_lists([ids], ids=[1], marks=[[0, CAPITAL, CAPITAL, 0, RECURS, 0, 0, 0]])
    corrupted = LABELLED.corrupt(CONTEXT, given, seed=1, epoch=0)
    (found,) = apart(corrupted)
    names = dict(zip(ids, words, strict=True)) | {SPECIAL.mask: "[MASK]"}
    shown = ["[CLS]", "new", "[MASK]", "is", "big", ".", "new", "[SEP]"]
    assert [names[token] for token in found["tokens"]] == shown
    assert (found["masked_lm places"], found["masked_lm labels"]) == ([2], [11])
    assert found["capitalization places"] == found["token_document places"] == [1, 2, 3, 4, 5, 6]
    assert found["capitalization labels"] == [1, 1, 0, 0, 0, 0]
    assert found["token_document labels"] == [0, 0, 0, 1, 0, 0]


@given(st.lists(st.integers(1, 60), max_size=8), st.integers(0, 3))
def test_every_plain_token_is_asked_and_the_scheme_is_untouched(
    lengths: list[int], epoch: int
) -> None:
    sequences = marked(lengths)
    for then in (MaskedConfig(), UnitsConfig(kind="units", level="words", share=0.3)):
        config = LabelledConfig(kind="labelled", then=then)
        corrupted = config.corrupt(CONTEXT, sequences, seed=1, epoch=epoch)
        alone = then.corrupt(CONTEXT, sequences, seed=1, epoch=epoch)
        assert (corrupted.inputs.tokens == alone.inputs.tokens).all()
        assert (restored(corrupted) == sequences.tokens).all()
        check_bounds(config, CONTEXT, sequences, corrupted)
        expected: dict[str, list[int]] = {"places": [], "capitalization": [], "token_document": []}
        for place, (token, mark) in enumerate(
            zip(sequences.tokens.tolist(), sequences.marks.tolist(), strict=True)
        ):
            if token not in RESERVED:
                expected["places"].append(place)
                expected["capitalization"].append(mark >> 6 & 1)
                expected["token_document"].append(mark >> 7)
        for name in ("capitalization", "token_document"):
            assert corrupted.targets[name].places.tolist() == expected["places"]
            assert corrupted.targets[name].labels.tolist() == expected[name]
        if len(sequences.ids):
            check_purity(config, CONTEXT, sequences, random.sample(range(len(lengths)), 1))


@pytest.mark.parametrize(
    ("questions", "asked"),
    [
        ({}, ["capitalization", "token_document"]),
        ({"capitalization": False}, ["token_document"]),
        ({"token_document": False}, ["capitalization"]),
    ],
)
def test_only_what_is_asked_is_marked_and_predicted(
    questions: dict[str, Any], asked: list[str]
) -> None:
    config = LabelledConfig(kind="labelled", **questions)
    check_nothing(config, CONTEXT)
    corrupted = config.corrupt(CONTEXT, marked([9]), seed=1, epoch=0)
    assert list(corrupted.targets) == ["masked_lm", *asked]
    marks = {"capitalization": CAPITAL, "token_document": RECURS}
    assert config.marks() == sum(marks[name] for name in asked)
    whole_words = LabelledConfig(kind="labelled", then=UnitsConfig(kind="units", level="words"))
    assert whole_words.marks() == CAPITAL | RECURS | WORD


def test_asking_for_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="give the corruption 'masked' alone"):
        LabelledConfig(kind="labelled", capitalization=False, token_document=False)


@pytest.mark.parametrize(
    "then",
    [
        {"kind": "masked"},
        {"kind": "ngrams"},
        {"kind": "replaced"},
        {"kind": "smoothed"},
        {"kind": "spans"},
        {"kind": "units", "level": "words"},
        {"kind": "unilm", "mode": "bidirectional"},
        {"kind": "whole_word"},
        {"kind": "windows"},
    ],
    ids=lambda then: then["kind"],
)
def test_what_may_be_wrapped_keeps_tokens_at_their_places(
    then: dict[str, Any],
) -> None:
    given = json.dumps({"kind": "labelled", "then": then})
    config = TypeAdapter(LabelledConfig).validate_json(given)
    counts = np.ones(SPECIAL.size, dtype=np.int64)
    tables = {"frequencies": counts, "cumulative_frequencies": np.cumsum(counts)}
    context = Context(SPECIAL, tables)
    sequences = marked([40, 1, 17, 128])
    corrupted = config.corrupt(context, sequences, seed=1, epoch=0)
    places = np.flatnonzero(~np.isin(sequences.tokens, RESERVED))
    assert (corrupted.targets["capitalization"].places == places).all()
    assert len(corrupted.targets) >= 3
    check_bounds(config, context, sequences, corrupted)
    unchosen = np.delete(np.arange(len(sequences.tokens)), corrupted.targets["masked_lm"].places)
    assert (corrupted.inputs.tokens[unchosen] == sequences.tokens[unchosen]).all()


def test_a_million_real_tokens_are_all_asked(prose: Any) -> None:
    for length in (128, 512):
        context, sequences = prose(length)
        marks = sequences.marks & WORD  # word beginnings stand for capitals
        flagged = replace(sequences, marks=(marks * CAPITAL).astype(np.uint8))
        corrupted = LABELLED.corrupt(context, flagged, seed=1, epoch=0)
        count = len(sequences.ids) * (length - 2)
        assert count > 1_000_000
        assert len(corrupted.targets["masked_lm"].places) == len(sequences.ids) * round(
            0.15 * length
        )
        capitals = corrupted.targets["capitalization"]
        assert len(capitals.places) == count
        assert capitals.labels.sum() == marks.sum()
        assert corrupted.targets["token_document"].labels.sum() == 0


def test_labels_are_those_of_the_documents_and_static_equals_dynamic(tmp_path: Path) -> None:
    write_documents(tmp_path / "raw" / "a.txt", make_text(60))
    common = {
        "length": 32,
        "layout": {"kind": "pairs"},
        "pack": True,
        "corruption": {"kind": "labelled", "then": {"kind": "masked", "max_targets": 4}},
        "copies": 2,
    }
    preparation = prepare_config(
        tmp_path,
        corpus={"annotations": {"capitals": True}},
        tokenizer={"kind": "wordpiece", "vocab_size": 200, "lowercase": True},
        examples={mode: common | {"mode": mode} for mode in ("static", "dynamic")},
    )
    run_stages(preparation)
    scheme = preparation.examples["static"].corruption
    static, dynamic = (
        RowSet(preparation.examples_directory(mode), "train", seed=preparation.seed)
        for mode in ("static", "dynamic")
    )
    for epoch in range(2):
        rows = np.random.default_rng(epoch).permutation(static.num_rows[epoch])
        one, other = (
            rowset.arrays(scheme, rows, epoch=epoch).named() for rowset in (static, dynamic)
        )
        assert one.keys() == other.keys()
        for name, values in one.items():
            assert (values == other[name]).all(), name
    store = TokenStore(preparation.tokens_directory, "train")
    documents = [store.ids(number).tolist() for number in range(store.num_documents)]
    capitals = [store.capitals(number).tolist() for number in range(store.num_documents)]
    read = dynamic.read(0, np.arange(dynamic.num_rows[0])).sequences
    seen = 0
    for number in range(len(read.ids)):
        own = slice(*read.offsets[number : number + 2])
        if read.labels[number] != 0:
            continue  # two documents
        tokens, marks = read.tokens[own].tolist(), read.marks[own].tolist()
        middle = tokens.index(dynamic.special.separator)
        inside = tokens[1:middle] + tokens[middle + 1 : -1]
        flags = marks[1:middle] + marks[middle + 1 : -1]
        document = int(read.ids[number]) >> 20
        whole = documents[document]
        assert [mark >> 7 for mark in flags] == [
            int(whole.count(token) > inside.count(token)) for token in inside
        ]
        for side, flags_of in (
            (tokens[1:middle], marks[1:middle]),
            (tokens[middle + 1 : -1], marks[middle + 1 : -1]),
        ):
            size = len(side)
            assert [bool(mark & CAPITAL) for mark in flags_of] in [
                capitals[document][start : start + size]
                for start in range(len(whole) - size + 1)
                if whole[start : start + size] == side
            ]
        seen += sum(mark >> 7 for mark in flags)
    assert seen > 50
    assert sum(map(sum, capitals)) > 100


def test_what_the_wrapped_scheme_lacks_is_said() -> None:
    without_mask = Context(SpecialIds(size=100, pad=0, start=2, separator=3))
    scheme = LabelledConfig(kind="labelled", then=MaskedConfig())
    with pytest.raises(InputError, match="mask"):
        scheme.check(without_mask, 32)
