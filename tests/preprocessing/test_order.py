import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.draws import purpose_key
from preprocessing.order import Epochs, Interleave, Order, whole_shares


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


@pytest.mark.parametrize("sizes", [range(2, 1001), (999_983,)])
def test_no_row_is_read_twice_in_an_epoch_and_none_is_missing(sizes: range) -> None:
    """The second epoch, which begins where the first one ends."""
    for size in sizes:
        epochs = Epochs((size,), seed=1, phase=2)
        ((epoch, rows),) = epochs.locate(np.arange(size, 2 * size))
        assert epoch == 1
        assert (np.bincount(rows, minlength=size) == 1).all(), size


def test_a_row_stands_at_every_position_equally_often() -> None:
    size, epochs = 50, 2000
    positions = np.empty((epochs, size), dtype=np.int64)
    for epoch in range(epochs):
        positions[epoch] = np.argsort(order(size, epoch))
    expected = epochs / size
    for row in range(size):
        counts = np.bincount(positions[:, row], minlength=size)
        statistic = ((counts - expected) ** 2 / expected).sum()
        assert statistic < size - 1 + 6 * math.sqrt(2 * (size - 1)), row  # of 50 rows, one in 1e7


def test_whole_shares_go_to_the_largest_remainders() -> None:
    assert whole_shares((0.5, 0.3, 0.2), 7) == (4, 2, 1)
    assert whole_shares((1, 1, 1), 4) == (2, 1, 1)
    assert whole_shares((1e-9, 1), 1024) == (0, 1024)


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=9), st.integers(1, 5000))
def test_whole_shares_sum_up_and_are_nearest(weights: list[float], total: int) -> None:
    counts = whole_shares(weights, total)
    assert sum(counts) == total
    assert min(counts) >= 0
    for weight, count in zip(weights, counts, strict=True):
        assert abs(count - total * weight / sum(weights)) < 1 + 1e-6


def test_interleaved_sources_are_worked_by_hand() -> None:
    mixed = Interleave((2, 1), purpose_key(0, "mixture", 9))
    sources, indices = mixed.locate(np.arange(9))
    assert sources.tolist() == [0, 1, 0, 1, 0, 0, 0, 0, 1]
    assert indices.tolist() == [0, 0, 1, 1, 2, 3, 4, 5, 2]
    assert [mixed.count(0, position) for position in range(10)] == [0, 1, 1, 2, 2, 3, 4, 5, 6, 6]


COUNTS = st.lists(st.integers(0, 40), min_size=1, max_size=5).filter(any)


@given(COUNTS, st.integers(0, 2**63), st.integers(0, 10**12), st.integers(1, 300))
def test_sources_have_their_shares_in_every_block_and_follow_on(
    counts: list[int], seed: int, start: int, length: int
) -> None:
    mixed = Interleave(tuple(counts), purpose_key(seed, "mixture", 0))
    sources, indices = mixed.locate(np.arange(start, start + length))
    for source in range(len(counts)):
        own = indices[sources == source]
        first = mixed.count(source, start)
        assert own.tolist() == list(range(first, first + len(own)))
        assert mixed.count(source, start + length) == first + len(own)
    block = start // mixed.block
    whole, _ = mixed.locate(np.arange(block * mixed.block, (block + 1) * mixed.block))
    assert np.bincount(whole, minlength=len(counts)).tolist() == counts
    one = start + length - 1
    assert mixed.locate(np.array([one]))[1][0] == indices[-1]


def test_the_order_of_sources_is_another_one_in_every_block() -> None:
    mixed = Interleave((512, 512), purpose_key(3, "mixture", 0))
    blocks = mixed.locate(np.arange(64 * 1024))[0].reshape(64, 1024)
    agree = np.corrcoef(blocks)[np.triu_indices(64, 1)]
    assert np.abs(agree).max() < 5 / math.sqrt(1024)  # of 2016 pairs
    by_place = blocks.sum(axis=0)
    assert abs(by_place - 32).max() < 5 * math.sqrt(64 / 4)


def test_a_position_far_away_is_found_at_once() -> None:
    mixed = Interleave(whole_shares((5, 3, 2), 1024), purpose_key(3, "mixture", 0))
    positions = np.arange(10**15, 10**15 + 10_000)
    sources, indices = mixed.locate(positions)
    shares = np.bincount(sources) / len(sources)
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.01)
    assert indices[sources == 0][0] == mixed.count(0, 10**15)
