"""The order in two levels: everything once, and one window of blocks at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.draws import purpose_key
from preprocessing.order import WindowedOrder


def test_worked_example() -> None:
    order = WindowedOrder(11, np.uint64(7), block=2, window=2)
    assert order(np.arange(11)).tolist() == [1, 9, 0, 8, 4, 7, 5, 6, 3, 2, 10]


@given(st.integers(1, 3000), st.integers(1, 70), st.integers(1, 9), st.integers(0, 2**63))
def test_every_item_once_in_windows_of_whole_blocks(
    size: int, block: int, window: int, key: int
) -> None:
    order = WindowedOrder(size, np.uint64(key), block, window)
    items = order(np.arange(size))
    assert sorted(items.tolist()) == list(range(size))
    full = size // block * block
    assert items[full:].tolist() == list(range(full, size))
    for begin in range(0, full, block * window):
        own = items[begin : min(begin + block * window, full)]
        assert len(np.unique(own // block)) == len(own) // block, "whole blocks"


@given(st.integers(2, 500), st.data())
def test_a_position_is_found_without_the_others(size: int, data: st.DataObject) -> None:
    order = WindowedOrder(size, np.uint64(3), block=7, window=4)
    wanted = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=9)))
    assert (order(wanted) == order(np.arange(size))[wanted]).all()


@pytest.mark.parametrize("size", [10_000, 99_991])
def test_orders_of_two_epochs_have_nothing_in_common(size: int) -> None:
    first, second = (
        WindowedOrder(size, purpose_key(1, "order", epoch), block=16, window=8)(np.arange(size))
        for epoch in (0, 1)
    )
    windows = size // (16 * 8)
    # Items move with their windows, so that the windows are what counts.
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(windows)
    assert (first == second).mean() < 0.01


def test_a_window_of_everything_shuffles_everything() -> None:
    items = WindowedOrder(4096, np.uint64(5), block=16, window=256)(np.arange(4096))
    assert abs(np.corrcoef(np.arange(4096), items)[0, 1]) < 4 / np.sqrt(4096)
    assert (np.abs(np.diff(items)) == 1).mean() < 0.01
