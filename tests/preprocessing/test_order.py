import math

import numpy as np
import pytest

from preprocessing.draws import purpose_key
from preprocessing.order import Epochs, Order


def order(size: int, epoch: int = 0, seed: int = 0) -> np.ndarray:
    return Order(size, purpose_key(seed, "order", epoch))(np.arange(size))


def ranks_correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])  # both are ranks already


def test_order_is_pinned() -> None:
    """A resumed training goes on in this order: it never changes."""
    assert order(10).tolist() == [3, 8, 1, 0, 2, 5, 4, 6, 7, 9]


def test_order_is_a_permutation_for_every_size() -> None:
    for size in range(1, 1001):
        assert (np.sort(order(size)) == np.arange(size)).all(), size


@pytest.mark.parametrize("size", [2**20 + 1, 999_983])
def test_order_is_a_permutation_of_a_large_odd_size(size: int) -> None:
    assert (np.bincount(order(size), minlength=size) == 1).all()


def test_order_of_billions_is_found_by_position_alone() -> None:
    size = 3_000_000_019
    shuffled = Order(size, purpose_key(1, "order", 0))
    positions = np.linspace(0, size - 1, 100_000).astype(np.int64)
    items = shuffled(positions)
    assert items.min() >= 0
    assert items.max() < size
    assert len(np.unique(items)) == len(positions)
    assert shuffled(positions[77:78])[0] == items[77]
    assert abs(ranks_correlation(positions, items)) < 4 / math.sqrt(len(positions))
    counts = np.bincount(items * 100 // size, minlength=100)
    assert ((counts - 1000) ** 2 / 1000).sum() < 99 + 4 * math.sqrt(2 * 99)


@pytest.mark.parametrize("size", [1000, 4096, 5001])
def test_epochs_do_not_correlate(size: int) -> None:
    epochs = [order(size, epoch) for epoch in range(12)]
    limit = 4 / math.sqrt(size)
    for a in range(len(epochs)):
        assert abs(ranks_correlation(np.arange(size), epochs[a])) < limit
        assert abs(ranks_correlation(epochs[a][1:], epochs[a][:-1])) < limit, "neighbours"
        for b in range(a):
            assert abs(ranks_correlation(epochs[a], epochs[b])) < limit


@pytest.mark.parametrize("size", [2, 3, 4])
def test_every_permutation_of_a_few_items_comes_up_equally_often(size: int) -> None:
    epochs = 6000
    seen: dict[tuple[int, ...], int] = {}
    for epoch in range(epochs):
        permutation = tuple(order(size, epoch).tolist())
        seen[permutation] = seen.get(permutation, 0) + 1
    expected = epochs / math.factorial(size)
    assert len(seen) == math.factorial(size)
    statistic = sum((count - expected) ** 2 / expected for count in seen.values())
    freedom = len(seen) - 1
    assert statistic < freedom + 4 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("position", [-1, 5])
def test_positions_outside_are_refused(position: int) -> None:
    with pytest.raises(ValueError, match=r"outside \[0, 5\)"):
        Order(5, purpose_key(0, "order"))(np.array([0, position]))


@pytest.mark.parametrize("rows_per_copy", [(5,), (5, 3), (1, 7, 4), (2, 0, 3), (1, 1, 1)])
def test_locate_agrees_with_going_through_every_epoch(rows_per_copy: tuple[int, ...]) -> None:
    epochs = Epochs(rows_per_copy, seed=3, phase=1)
    expected: list[tuple[int, int]] = []
    epoch = 0
    while len(expected) < 60:
        size = rows_per_copy[epoch % len(rows_per_copy)]
        shuffled = Order(size, purpose_key(3, "order", 1, 0, epoch))(np.arange(size))
        expected += [(epoch, row) for row in shuffled.tolist()]
        epoch += 1
    for start in range(50):
        for count in (1, 4, 9):
            got = [
                (epoch, row)
                for epoch, rows in epochs.locate(np.arange(start, start + count))
                for row in rows.tolist()
            ]
            assert got == expected[start : start + count]


def test_seed_phase_and_source_give_other_orders() -> None:
    def rows(**changed: int) -> list[int]:
        given = {"seed": 1, "phase": 0, "source": 0} | changed
        return Epochs((100,), **given).locate(np.arange(100))[0][1].tolist()

    orders = [rows(), rows(seed=2), rows(phase=1), rows(source=1)]
    assert all(sorted(each) == list(range(100)) for each in orders)
    assert len({tuple(each) for each in orders}) == 4
