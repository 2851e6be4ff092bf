import itertools
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.annotations import AnnotationsConfig, JiebaConfig, LexiconConfig
from preprocessing.annotations.annotator import (
    SPANS,
    Annotations,
    Annotator,
    annotation_fields,
    describe,
    digests,
)
from preprocessing.storage import InputError
from preprocessing.texts import Texts
from preprocessing.tokenization.base import Encoded

NONE = np.zeros(0, np.int64)


def encoded_by(tokens: list[list[tuple[int, int]]], marks: list[int]) -> Encoded:
    """What an encoder would answer whose tokens have these bytes, text by text."""
    flat = [token for text in tokens for token in text]
    places = [next((i for i, t in enumerate(flat) if t[0] >= mark), len(flat)) for mark in marks]
    exact = [not any(begin < mark < end for begin, end in flat) for mark in marks]
    sizes = [len(text) for text in tokens]
    return Encoded(
        np.zeros(len(flat), np.uint16),
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        np.ones(len(flat), np.bool_),
        np.array(places, np.int64),
        np.array(exact, np.bool_),
    )


def spans_of(pairs: list[list[int]]) -> Annotations:
    spans = np.array(pairs, np.int64).reshape(-1, 2)
    return Annotations({"phrases": spans}, NONE, np.zeros(0, np.bool_))


def test_the_worked_example_of_the_module_holds() -> None:
    annotations = spans_of([[3, 11]])
    assert annotations.marks.tolist() == [3, 11]
    encoded = encoded_by([[(0, 2), (3, 6), (7, 11)]], [3, 11])
    assert encoded.marks.tolist() == [1, 3]
    spans = annotations.token_spans(annotations.marks, encoded)["phrases"]
    assert list(zip(spans.starts, spans.lengths, strict=True)) == [(1, 2)]
    assert (spans.counts.tolist(), spans.dropped) == ([1], 0)


def test_spans_count_from_the_first_token_of_their_text() -> None:
    # "new york, no" | "" | "a new york": the third text has a token across the border of a span.
    tokens = [[(0, 3), (4, 8), (8, 9), (10, 12)], [], [(12, 13), (14, 17), (18, 22), (22, 26)]]
    annotations = spans_of([[0, 8], [10, 12], [14, 22], [22, 24]])
    marks = np.union1d(annotations.marks, [12, 20])  # sentences begin at 0 and 12, something at 20
    spans = annotations.token_spans(marks, encoded_by(tokens, marks.tolist()))["phrases"]
    assert spans.starts.tolist() == [0, 3, 1]
    assert spans.lengths.tolist() == [2, 1, 2]
    assert spans.counts.tolist() == [2, 0, 1]
    assert spans.dropped == 1
    column = spans.column(np.array([True, False, True]))
    assert column.type == SPANS
    assert column.to_pylist() == [
        [{"start": 0, "length": 2}, {"start": 3, "length": 1}],
        [{"start": 1, "length": 2}],
    ]


def test_a_span_without_a_token_is_dropped() -> None:
    annotations = spans_of([[0, 2]])
    spans = annotations.token_spans(annotations.marks, encoded_by([[(2, 5)]], [0, 2]))["phrases"]
    assert (len(spans.starts), spans.dropped) == (0, 1)


def test_no_text_has_no_span() -> None:
    annotations = spans_of([])
    spans = annotations.token_spans(annotations.marks, encoded_by([], []))["phrases"]
    assert spans.column(np.zeros(0, np.bool_)).to_pylist() == []
    assert annotations.word_starts(annotations.marks, encoded_by([], [])).tolist() == []


def test_a_segmenter_decides_where_words_begin() -> None:
    # "我们 a" by characters, then by a token that holds both of them.
    annotations = Annotations({}, np.array([0, 3]), np.array([True, False]))
    by_character = encoded_by([[(0, 3), (3, 6), (7, 8)]], [0, 3])
    starts = annotations.word_starts(annotations.marks, by_character)
    assert starts.tolist() == [True, False, True]
    as_one = encoded_by([[(0, 6), (7, 8)]], [0, 3])
    assert annotations.word_starts(annotations.marks, as_one).tolist() == [True, True]
    # It is the segmenter that says a word begins where a vocabulary saw none.
    inside = Encoded(
        by_character.ids,
        by_character.offsets,
        np.zeros(3, np.bool_),
        by_character.marks,
        by_character.exact,
    )
    assert annotations.word_starts(annotations.marks, inside).tolist() == [True, False, False]


@given(st.data())
def test_spans_lie_within_their_texts_and_never_overlap(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, 12), min_size=1, max_size=4))
    offsets = np.concatenate([[0], np.cumsum(sizes)]).tolist()
    tokens, spans = [], []
    for begin, end in itertools.pairwise(offsets):
        cuts = sorted(data.draw(st.sets(st.integers(begin, end), max_size=6)))
        tokens.append(list(itertools.pairwise(cuts)))
        cuts = sorted(data.draw(st.sets(st.integers(begin, end), max_size=6)))
        spans += [list(pair) for pair in zip(cuts[::2], cuts[1::2], strict=False)]
    annotations = spans_of(spans)
    encoded = encoded_by(tokens, annotations.marks.tolist())
    found = annotations.token_spans(annotations.marks, encoded)["phrases"]
    assert len(found.starts) + found.dropped == len(spans)
    rows = found.column(np.ones(len(sizes), np.bool_)).to_pylist()
    flat = [token for text in tokens for token in text]
    kept = []
    for text, row in enumerate(rows):
        place = 0
        for span in row:
            assert span["start"] >= place
            assert span["length"] >= 1
            place = span["start"] + span["length"]
            first = int(encoded.offsets[text]) + span["start"]
            kept.append((flat[first][0], flat[first + span["length"] - 1][1]))
        assert place <= len(tokens[text])
    # What is kept holds the tokens of its bytes, and no byte of others.
    starts = [begin for begin, _ in spans]
    for begin, end in kept:
        span = spans[int(np.searchsorted(starts, begin, side="right")) - 1]
        assert span[0] <= begin
        assert end <= span[1]


@pytest.fixture
def config(tmp_path: Path) -> AnnotationsConfig:
    (tmp_path / "phrases").write_text("来到\nin fact\n", encoding="utf-8")
    (tmp_path / "names").write_text("北京\nNew York\tLOC\n", encoding="utf-8")
    (tmp_path / "words").write_text("我们 9\n来到 8\n北京 7\n", encoding="utf-8")
    return AnnotationsConfig(
        phrases=(LexiconConfig(path=tmp_path / "phrases", case_sensitive=False),),
        entities=(LexiconConfig(path=tmp_path / "names"),),
        segmenter=JiebaConfig(kind="jieba", hmm=False, dictionary=tmp_path / "words"),
    )


def test_an_annotator_finds_every_layer(config: AnnotationsConfig) -> None:
    texts = Texts.of(pa.array(["In Fact", "我们来到北京"]))
    annotations = Annotator(config).annotate(texts)
    assert [field.name for field in annotation_fields(config)] == ["phrases", "entities"]
    assert {layer: spans.tolist() for layer, spans in annotations.spans.items()} == {
        "phrases": [[0, 7], [13, 19]],
        "entities": [[19, 25]],
    }
    assert annotations.word_places.tolist() == [7, 10, 13, 16, 19, 22]
    assert annotations.word_begins.tolist() == [True, False] * 3
    assert annotations.marks.tolist() == [0, 7, 10, 13, 16, 19, 22, 25]


def test_nothing_is_found_where_nothing_is_asked_for() -> None:
    annotations = Annotator(AnnotationsConfig()).annotate(Texts.of(pa.array(["我们 in fact"])))
    assert annotations.marks.tolist() == []
    assert describe(AnnotationsConfig()) == digests(AnnotationsConfig()) == {}


def test_a_changed_file_changes_its_digest_alone(config: AnnotationsConfig, tmp_path: Path) -> None:
    before = digests(config)
    assert list(before) == ["phrases[0]", "entities[0]", "segmenter"]
    (tmp_path / "names").write_text("上海\n", encoding="utf-8")
    after = digests(config)
    assert [name for name in before if before[name] != after[name]] == ["entities[0]"]
    assert describe(config) == {
        "phrases": [{"case_sensitive": False, "min_characters": 2}],
        "entities": [{"case_sensitive": True, "min_characters": 2}],
        "segmenter": {"kind": "jieba", "hmm": False, "version": metadata.version("jieba")},
    }
    (tmp_path / "names").unlink()
    with pytest.raises(InputError, match="cannot read a lexicon"):
        digests(config)


def test_a_missing_library_is_named_with_what_brings_it(
    config: AnnotationsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setitem(sys.modules, "ahocorasick_rs", None)
    with pytest.raises(InputError, match=r"pip install lexmill\[annotations\]"):
        Annotator(config)
    monkeypatch.setattr(metadata, "version", missing)
    for complain in (
        lambda: Annotator(AnnotationsConfig(segmenter=config.segmenter)),
        lambda: describe(config),
    ):
        with pytest.raises(InputError, match=r"pip install lexmill\[zh\]"):
            complain()
