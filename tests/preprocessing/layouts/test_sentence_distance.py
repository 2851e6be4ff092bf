import math
from typing import Any

import numpy as np
from corpora import ListStore
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.layouts import SentenceDistanceConfig
from preprocessing.layouts.base import FRAMES, Cut, Material
from preprocessing.layouts.sentence_distance import ADJACENT, APART, ELSEWHERE

DISTANCE = SentenceDistanceConfig(kind="sentence_distance")


def cut(documents: list[list[int]], length: int, wanted: range | None = None, **keys: int) -> Cut:
    """Pairs from documents given by the lengths of their sentences."""
    store: Any = ListStore([[[1] * length for length in lengths] for lengths in documents])
    own = range(len(documents)) if wanted is None else wanted
    return DISTANCE.cut(
        Material(store, own, length, FRAMES["cls_sep"], **{"seed": 1, "copy": 0} | keys)
    )


def pairs(cut: Cut) -> list[tuple[int, tuple[int, int, int], tuple[int, int, int]]]:
    """Label, and document, start and stop of both sides."""
    pieces = cut.pieces
    spans = list(
        zip(pieces.documents.tolist(), pieces.starts.tolist(), pieces.stops.tolist(), strict=True)
    )
    return [
        (label, spans[2 * number], spans[2 * number + 1])
        for number, label in enumerate(cut.labels.tolist())
    ]


def test_worked_example() -> None:
    """Seven sentences of 2 tokens; a pair holds 8 tokens, so that A = s2 s3 leaves 4 for B."""
    seen = set()
    for copy in range(400):
        for label, first, second in pairs(cut([[2] * 7, [2] * 7], 11, range(1), copy=copy)):
            if first == (0, 4, 8):
                seen.add((label, *second) if label != ELSEWHERE else (label, second[0]))
    assert seen >= {
        (ADJACENT, 0, 8, 12),
        (APART, 0, 10, 14),
        (APART, 0, 0, 2),
        (ELSEWHERE, 1),
    }
    assert {one for one in seen if one[0] == APART} == {
        (APART, 0, 10, 14),
        (APART, 0, 12, 14),
        (APART, 0, 0, 2),
    }


@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=9), min_size=1, max_size=5),
    st.integers(8, 40),
    st.integers(0, 5),
)
def test_labels_say_what_lies_between(documents: list[list[int]], length: int, copy: int) -> None:
    made = cut(documents, length, copy=copy)
    assert (made.lengths <= length).all()
    assert (made.pieces.lengths > 0).all()
    assert len(set(made.ids.tolist())) == len(made.ids)
    for number, (label, first, second) in enumerate(pairs(made)):
        document = int(made.ids[number]) >> 20
        assert first[0] == document
        assert second[2] <= sum(documents[second[0]])
        if label == ELSEWHERE:
            assert second[0] != document
            continue
        assert second[0] == document
        sentence_of = np.repeat(np.arange(len(documents[document])), documents[document])
        before, after = sorted([first[1:], second[1:]])
        gap = sentence_of[after[0]] - sentence_of[before[1] - 1]
        if label == ADJACENT:
            assert first[1] < second[1]
            # Truncation takes tokens off the ends of both, which may part the two.
            assert gap <= 1 or made.lengths[number] == length
        else:
            assert gap >= 2


def test_possible_classes_are_equally_likely() -> None:
    count = 4000
    made = cut([[3] * 9] * count, 30)
    # Pairs that begin a document: all sentences are a chunk, whose split is uniform in 1 ... 8;
    # only where a single one is left is none apart.
    first = np.flatnonzero(np.diff(made.ids.astype(np.int64) >> 20, prepend=-1))
    shares = np.bincount(made.labels[first], minlength=3)
    assert shares.sum() == count
    expected = count * np.array([7 / 24 + 1 / 16, 7 / 24, 7 / 24 + 1 / 16])
    assert (np.abs(shares - expected) < 4 * math.sqrt(count * 2 / 9)).all()
    assert 0 not in cut([[30]] * 50, 30).labels, "a single sentence has no neighbour"
    assert set(cut([[3, 3]] * 200, 30).labels.tolist()) == {ADJACENT, ELSEWHERE}
    assert set(cut([[3] * 9], 30).labels.tolist()) <= {ADJACENT, APART}
    assert len(cut([[5]], 30).ids) == 0


def test_a_pair_does_not_depend_on_what_else_is_cut() -> None:
    documents = [[2, 3, 4, 2], [5, 1, 1, 4, 2, 2], [3, 3, 3, 3, 3]]
    whole, alone = pairs(cut(documents, 16)), pairs(cut(documents, 16, range(1, 2)))
    assert alone
    assert [pair for pair in whole if pair[1][0] == 1] == alone
    assert any(pairs(cut(documents, 16, copy=copy)) != whole for copy in range(1, 4))
