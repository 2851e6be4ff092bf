"""The rule, on records written by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from preprocessing.duplicates import matching
from preprocessing.duplicates.matching import exact_matches, near_matches, shared


def u64(*values: int) -> NDArray[np.uint64]:
    return np.array(values, np.uint64)


def pairs(found: matching.Matches) -> list[tuple[int, int]]:
    return sorted(zip(found.repeated.tolist(), found.kept.tolist(), strict=True))


def similar(*alike: set[int]):  # type: ignore[no-untyped-def]
    """1 for two records of one set, else 0."""

    def similarity(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.array(
            [
                any({a, b} <= own for own in alike)
                for a, b in zip(first.tolist(), second.tolist(), strict=True)
            ],
            np.float32,
        )

    return similarity


def test_the_lowest_rank_stays_wherever_it_stands() -> None:
    key, rest = u64(7, 5, 7, 7, 5), u64(1, 1, 1, 2, 1)
    rank = u64(30, 10, 20, 0, 40)
    assert pairs(exact_matches(key, rest, rank)) == [(0, 2), (4, 1)]
    nothing = exact_matches(u64(), u64(), u64())
    assert pairs(nothing) == []


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30), st.randoms())
def test_exact_matches_against_a_dictionary(ids: list[tuple[int, int]], draw: object) -> None:
    ranks = list(range(len(ids)))
    draw.shuffle(ranks)  # type: ignore[attr-defined]
    first: dict[tuple[int, int], int] = {}
    for index in sorted(range(len(ids)), key=ranks.__getitem__):
        first.setdefault(ids[index], index)
    expected = [(i, first[own]) for i, own in enumerate(ids) if first[own] != i]
    key, rest = u64(*(a for a, _ in ids)), u64(*(b for _, b in ids))
    assert pairs(exact_matches(key, rest, u64(*ranks))) == expected


def test_shared_keys() -> None:
    assert sorted(shared(u64(5, 1, 5, 2, 3, 3, 5)).tolist()) == [0, 2, 4, 5, 6]
    assert shared(u64(1, 2, 3)).tolist() == []
    assert shared(u64()).tolist() == []


def test_documents_of_a_bucket_are_compared_with_its_leaders() -> None:
    key = u64(1, 1, 1, 1, 1, 2, 2)
    rank = u64(5, 4, 3, 2, 1, 0, 6)
    found = near_matches(key, rank, similar({4, 2}, {3, 1, 0}), 0.5)
    assert pairs(found) == [(0, 3), (1, 3), (2, 4)], "3 leads the second round; 5, 6 differ"
    everything = near_matches(key, rank, similar(set(range(7))), 0.5)
    assert pairs(everything) == [(0, 4), (1, 4), (2, 4), (3, 4), (6, 5)], "never across buckets"
    assert (everything.similarity == 1).all()
    assert pairs(near_matches(key, rank, similar(), 0.5)) == []


def test_a_document_that_repeats_another_does_not_lead() -> None:
    found = near_matches(u64(1, 1, 1), u64(0, 1, 2), similar({0, 1}, {1, 2}), 0.5)
    assert pairs(found) == [(1, 0)]


def test_threshold_itself_counts() -> None:
    def half(first: NDArray[np.int64], _: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.full(len(first), 0.5, np.float32)

    assert pairs(near_matches(u64(1, 1), u64(0, 1), half, 0.5)) == [(1, 0)]
    assert pairs(near_matches(u64(1, 1), u64(0, 1), half, 0.51)) == []


def test_a_bucket_costs_a_bounded_number_of_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_PAIRS_AT_ONCE", 50)
    compared = 0

    def never(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float32]:
        nonlocal compared
        assert len(first) == len(second) <= 50
        compared += len(first)
        return np.zeros(len(first), np.float32)

    near_matches(np.ones(1000, np.uint64), np.arange(1000, dtype=np.uint64), never, 0.5)
    assert compared == sum(1000 - leader for leader in range(1, matching.MOST_LEADERS + 1))
