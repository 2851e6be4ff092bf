from collections import Counter
from typing import Any

import numpy as np
import pytest
from corpora import ListStore
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.layouts.base import Spans
from preprocessing.marking import Marker
from preprocessing.marks import RECURS, SENTENCE


def spans(*pieces: tuple[int, int, int]) -> Spans:
    documents, starts, stops = np.array(pieces, dtype=np.int64).reshape(-1, 3).T
    return Spans(documents, starts, stops)


def test_worked_example() -> None:
    a, b, c, d = 5, 6, 7, 8
    store: Any = ListStore([[[a, b, c], [a, d, b]]])
    found = Marker(store, RECURS).of(spans((0, 2, 4), (0, 5, 6)), range(2))
    assert [marks.tolist() for marks in found] == [[0, RECURS], [RECURS]]
    with_sentences = Marker(store, RECURS | SENTENCE).of(spans((0, 2, 4)), range(1))
    assert [marks.tolist() for marks in with_sentences] == [[0, RECURS | SENTENCE]]
    assert Marker(store, SENTENCE).of(spans((0, 3, 4)), range(1))[0].tolist() == [SENTENCE]


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[list[int]], list[tuple[int, int, int]]]:
    documents = draw(
        st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=15), min_size=1, max_size=3)
    )
    pieces = []
    for number, tokens in enumerate(documents):
        cuts = sorted(draw(st.sets(st.integers(0, len(tokens)), max_size=6)))
        pairs = list(zip(cuts[::2], cuts[1::2], strict=False))
        pieces += [(number, start, stop) for start, stop in pairs]
    return documents, draw(st.permutations(pieces))


@given(cases())
def test_a_token_recurs_where_its_document_has_more_of_it_than_the_sequence(
    case: tuple[list[list[int]], list[tuple[int, int, int]]],
) -> None:
    documents, pieces = case
    store: Any = ListStore([[tokens] for tokens in documents])
    found = Marker(store, RECURS).of(spans(*pieces), range(len(pieces)))
    inside = Counter(
        (number, token) for number, start, stop in pieces for token in documents[number][start:stop]
    )
    expected = [
        [
            RECURS * (documents[number].count(token) > inside[number, token])
            for token in documents[number][start:stop]
        ]
        for number, start, stop in pieces
    ]
    assert [marks.tolist() for marks in found] == expected


def test_marks_of_a_document_are_not_written_to() -> None:
    store: Any = ListStore([[[5, 6], [5]]])
    marker = Marker(store, RECURS)
    first = marker.of(spans((0, 0, 2)), range(1))[0]
    whole = marker.of(spans((0, 0, 3)), range(1))[0]
    assert (first.tolist(), whole.tolist()) == ([RECURS, 0], [0, 0, 0])


@pytest.mark.parametrize("wanted", [RECURS, RECURS | SENTENCE])
def test_what_lies_behind_the_end_of_a_document_has_no_mark(wanted: int) -> None:
    store: Any = ListStore([[[5, 6], [5]]])
    (found,) = Marker(store, wanted).of(spans((0, 2, 4)), range(1))
    assert found.tolist() == [wanted]
