import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.packing import WINDOW, pack_rows

LENGTHS = st.lists(st.integers(1, 20), max_size=120)


def used(rows: list[list[int]], lengths: np.ndarray) -> list[int]:
    return [sum(int(lengths[index]) for index in row) for row in rows]


def first_fit(lengths: list[int], length: int) -> int:
    """Rows that the plainest packing needs."""
    free: list[int] = []
    for size in lengths:
        for row, room in enumerate(free):
            if room >= size:
                free[row] -= size
                break
        else:
            free.append(length - size)
    return len(free)


def test_worked_examples() -> None:
    assert pack_rows(np.array([5, 3, 7, 1]), length=8) == [[2, 3], [0, 1]]
    # Longest first: 6, 5, 4, 3, 2. The 4 opens a row, the 3 fills the 5's, the 2 the 6's.
    assert pack_rows(np.array([2, 3, 4, 5, 6]), length=8) == [[4, 0], [3, 1], [2]]
    # Among rows that are equally full, the oldest.
    assert pack_rows(np.array([5, 5, 3, 3]), length=8) == [[0, 2], [1, 3]]
    assert pack_rows(np.array([8, 8]), length=8) == [[0], [1]]
    assert pack_rows(np.array([], dtype=np.int64), length=8) == []


def test_best_fit_takes_the_fullest_row() -> None:
    # 6 leaves 4, 7 leaves 3: the 3 goes to the 7, though the 6 would take it.
    assert pack_rows(np.array([7, 6, 3]), length=10) == [[0, 2], [1]]


@given(LENGTHS, st.integers(1, 40))
def test_every_sequence_lies_in_one_row_and_no_row_is_overfull(
    lengths: list[int], window: int
) -> None:
    array = np.array(lengths, dtype=np.int64)
    rows = pack_rows(array, length=20, window=window)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(0 < total <= 20 for total in used(rows, array))
    assert rows == pack_rows(array, length=20, window=window)


@given(LENGTHS, st.integers(1, 40))
def test_windows_are_packed_by_themselves_and_stand_in_order(
    lengths: list[int], window: int
) -> None:
    array = np.array(lengths, dtype=np.int64)
    expected = [
        [begin + index for index in row]
        for begin in range(0, len(lengths), window)
        for row in pack_rows(array[begin : begin + window], length=20)
    ]
    assert pack_rows(array, length=20, window=window) == expected


@given(LENGTHS)
def test_at_least_as_tight_as_first_fit_on_sorted_lengths_is_bounded(lengths: list[int]) -> None:
    """Best fit decreasing needs at most 11/9 of the fewest rows there can be, plus one."""
    rows = len(pack_rows(np.array(lengths, dtype=np.int64), length=20))
    fewest = -(-sum(lengths) // 20)
    assert fewest <= rows <= max(11 / 9 * first_fit(sorted(lengths)[::-1], 20) + 1, fewest)


def test_never_worse_than_first_fit_on_usual_lengths() -> None:
    for seed in range(20):
        lengths = np.random.default_rng(seed).integers(5, 129, 2000)
        rows = pack_rows(lengths, length=128)
        assert len(rows) <= first_fit(lengths.tolist(), 128)
        assert lengths.sum() / (len(rows) * 128) > 0.97


def test_a_window_bounds_the_work() -> None:
    lengths = np.full(WINDOW + 1, 3)
    rows = pack_rows(lengths, length=8)
    assert len(rows) == WINDOW // 2 + 1
    assert rows[-1] == [WINDOW]


def test_sequence_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="a sequence of 9 tokens does not fit 8"):
        pack_rows(np.array([3, 9]), length=8)
