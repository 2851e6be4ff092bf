import bisect
import itertools
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.packing import WINDOW, fewest_rows, fill, pack_rows

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


def plain_best_fit(lengths: np.ndarray, length: int) -> list[list[int]]:
    """The same packing as a sorted list of open rows."""
    packed: list[list[int]] = []
    room: list[tuple[int, int]] = []
    for index in np.argsort(-lengths, kind="stable").tolist():
        size = int(lengths[index])
        found = bisect.bisect_left(room, (size, -1))
        if found == len(room):
            packed.append([])
            free, row = length, len(packed) - 1
        else:
            free, row = room.pop(found)
        packed[row].append(index)
        if free > size:
            bisect.insort(room, (free - size, row))
    return packed


@given(LENGTHS)
def test_compiled_equals_the_plain_packing(lengths: list[int]) -> None:
    array = np.array(lengths, dtype=np.int64)
    assert pack_rows(array, length=20) == plain_best_fit(array, 20)


SIDES = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), max_size=80)


@given(SIDES, st.integers(1, 40))
def test_a_sequence_enters_only_where_both_sides_fit(
    sides: list[tuple[int, int]], window: int
) -> None:
    first, second = np.array(sides, dtype=np.int64).reshape(-1, 2).T
    rows = pack_rows(first, 20, window, decoder=(second, 9))
    assert sorted(index for row in rows for index in row) == list(range(len(sides)))
    assert all(total <= 20 for total in used(rows, first))
    assert all(total <= 9 for total in used(rows, second))
    if window >= len(sides) and first.sum() * 9 != second.sum() * 20:
        assert pack_rows(second, 9, window, decoder=(first, 20)) == rows, "sides are alike"
    assert len(rows) >= max(fewest_rows(first, 20), fewest_rows(second, 9))


def test_two_sides_as_worked_out() -> None:
    lengths, others = np.array([5, 3, 7, 1]), np.array([2, 9, 2, 2])
    assert pack_rows(lengths, 8, decoder=(others, 10)) == [[1], [2, 3], [0]]
    # A decoder that asks for nothing changes nothing.
    assert pack_rows(lengths, 8, decoder=(others * 0, 10)) == pack_rows(lengths, 8)
    with pytest.raises(ValueError, match="a sequence of 9 tokens does not fit 8"):
        pack_rows(lengths, 8, decoder=(others, 8))


def optimum(lengths: list[int], length: int) -> int:
    """The fewest rows, by trying everything."""
    for count in itertools.count():
        free = [length] * count

        def place(rest: list[int], free: list[int]) -> bool:
            if not rest:
                return True
            for row in {room: row for row, room in enumerate(free)}.values():
                if free[row] >= rest[0]:
                    left = list(free)
                    left[row] -= rest[0]
                    if place(rest[1:], left):
                        return True
            return False

        if place(sorted(lengths)[::-1], free):
            return count
    raise AssertionError


@given(st.lists(st.integers(1, 11), max_size=9))
def test_no_packing_needs_fewer_rows_than_the_bound(lengths: list[int]) -> None:
    array = np.array(lengths, dtype=np.int64)
    bound, best = fewest_rows(array, 11), optimum(lengths, 11)
    assert -(-sum(lengths) // 11) <= bound <= best <= len(pack_rows(array, 11))


def test_the_bound_sees_what_cannot_share_a_row() -> None:
    assert fewest_rows(np.array([6, 6, 6]), 10) == 3, "the sum alone says 2"
    assert fewest_rows(np.array([7, 7, 4, 4]), 10) == 3, "no 4 goes to a 7"
    assert fewest_rows(np.array([5, 5, 5, 5]), 10) == 2
    assert fewest_rows(np.array([], dtype=np.int64), 10) == 0
    with pytest.raises(ValueError, match="a sequence of 11 tokens does not fit 10"):
        fewest_rows(np.array([11]), 10)


def test_fill_is_the_share_of_real_tokens() -> None:
    lengths = np.array([6, 6, 3])
    assert fill(lengths, 10, len(pack_rows(lengths, 10))) == 0.75
    assert fill(lengths[:0], 10, 0) == 1.0


def test_a_million_sequences_are_packed_close_to_the_bound_in_seconds() -> None:
    lengths = np.minimum(512, np.random.default_rng(0).geometric(1 / 60, 10**6))
    pack_rows(lengths[:10], 512)
    begun = time.perf_counter()
    rows = pack_rows(lengths, 512, decoder=(lengths // 4 + 1, 130))
    assert time.perf_counter() - begun < 20, "measured: 0.8 s"
    bound = max(fewest_rows(lengths, 512), fewest_rows(lengths // 4 + 1, 130))
    assert len(rows) < 1.002 * bound
