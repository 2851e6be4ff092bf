import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.draws import bits, integers, mix, purpose_key, sequence_keys, uniform


def chi_square(counts: np.ndarray) -> float:
    """The statistic of equal expectations, in standard deviations from its mean."""
    expected = counts.sum() / counts.size
    statistic = float(((counts - expected) ** 2 / expected).sum())
    freedom = counts.size - 1
    return (statistic - freedom) / math.sqrt(2 * freedom)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def splitmix(state: int) -> int:
    """SplitMix64's published next(), in plain integers."""
    word = 2**64 - 1
    z = (state + 0x9E3779B97F4A7C15) & word
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & word
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & word
    return z ^ (z >> 31)


def test_mix_is_splitmix64() -> None:
    # The first outputs of the published generator for the seeds 0 and 1.
    assert mix(np.array([0, 1], np.uint64)).tolist() == [0xE220A8397B1DCDAF, 0x910A2DEC89025CC1]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20))
def test_mix_agrees_with_plain_integers(states: list[int]) -> None:
    assert mix(np.array(states, np.uint64)).tolist() == [splitmix(state) for state in states]


def test_draws_are_pinned() -> None:
    """Prepared data and running trainings depend on these values: they never change."""
    keys = sequence_keys(1, "mask", 0, np.array([7, 8], np.uint64))
    assert int(purpose_key(1, "mask", 0)) == 5113274197358429260
    assert keys.tolist() == [4267740567381080265, 4912987627960783981]
    assert bits(keys, 3, 1).tolist() == [8700305528556476146, 8907827520670998324]
    assert integers(keys[:, None], np.arange(4), 2, 1000).tolist() == [
        [559, 130, 154, 567],
        [583, 846, 785, 438],
    ]


def test_uniform_is_the_upper_53_bits() -> None:
    keys = sequence_keys(1, "mask", 0, np.arange(1000))
    expected = [(value >> 11) / 2**53 for value in bits(keys, 5, 2).tolist()]
    assert uniform(keys, 5, 2).tolist() == expected
    assert min(expected) >= 0.0
    assert max(expected) < 1.0


def test_a_draw_does_not_depend_on_what_is_drawn_with_it() -> None:
    keys = sequence_keys(3, "mask", 2, np.arange(50))
    together = uniform(keys[:, None], np.arange(40), 1)
    for row, column in ((0, 0), (49, 39), (17, 5)):
        alone = sequence_keys(3, "mask", 2, np.array([row]))
        assert uniform(alone, column, 1)[0] == together[row, column]


def test_every_part_of_a_key_counts() -> None:
    variants = [
        (1, "mask", (0, 0)),
        (2, "mask", (0, 0)),
        (1, "pairs", (0, 0)),
        (1, "mask", (1, 0)),
        (1, "mask", (0, 1)),
        (1, "mask", (0,)),
        (-1, "mask", (0, 0)),
        (2**63, "mask", (0, 0)),
    ]
    keys = [int(purpose_key(seed, purpose, *parts)) for seed, purpose, parts in variants]
    assert len(set(keys)) == len(keys)
    assert purpose_key(2**64 + 5, "mask") == purpose_key(5, "mask"), "seeds count modulo 2**64"


@pytest.mark.parametrize("draw", [0, 1, 2, 7])
def test_uniform_over_keys_and_over_places(draw: int) -> None:
    keys = sequence_keys(1, "mask", 0, np.arange(200_000))
    counts = np.bincount((uniform(keys, 3, draw) * 1000).astype(int), minlength=1000)
    assert abs(chi_square(counts)) < 4
    places = np.arange(200_000)
    counts = np.bincount((uniform(keys[0], places, draw) * 1000).astype(int), minlength=1000)
    assert abs(chi_square(counts)) < 4


def test_low_bits_are_uniform_too() -> None:
    keys = sequence_keys(1, "mask", 0, np.arange(200_000))
    values = bits(keys, 0, 0)
    for shift in (0, 20, 40, 54):
        counts = np.bincount((values >> np.uint64(shift) & np.uint64(1023)).astype(int))
        assert abs(chi_square(counts)) < 4


def test_integers_are_uniform() -> None:
    keys = sequence_keys(1, "mask", 0, np.arange(100_000))
    for bound in (1, 2, 7, 997):
        values = integers(keys, 1, 2, bound)
        assert values.min() == 0
        assert values.max() == bound - 1
        if bound > 1:
            assert abs(chi_square(np.bincount(values, minlength=bound))) < 4
    assert integers(keys[:3], 1, 2, np.array([1, 10, 100])).tolist() == [
        int(integers(keys[i : i + 1], 1, 2, bound)[0]) for i, bound in enumerate((1, 10, 100))
    ]


def test_neighbours_are_independent() -> None:
    """Keys, places, draw numbers, epochs, seeds and purposes one apart do not correlate."""
    count = 200_000
    limit = 4 / math.sqrt(count)
    ids, places = np.arange(count), np.arange(count)
    keys = sequence_keys(1, "mask", 0, ids)
    base = uniform(keys, 0, 0)
    others = {
        "next key": np.roll(base, 1),
        "next place": uniform(keys, 1, 0),
        "next draw": uniform(keys, 0, 1),
        "next epoch": uniform(sequence_keys(1, "mask", 1, ids), 0, 0),
        "next seed": uniform(sequence_keys(2, "mask", 0, ids), 0, 0),
        "other purpose": uniform(sequence_keys(1, "pairs", 0, ids), 0, 0),
        "next document": uniform(sequence_keys(1, "mask", 0, ids + (1 << 20)), 0, 0),
    }
    for name, other in others.items():
        assert abs(correlation(base, other)) < limit, name
    along = uniform(keys[0], places, 0)
    assert abs(correlation(along[1:], along[:-1])) < limit
    assert abs(correlation(along, uniform(keys[0], places, 1))) < limit
    assert abs(correlation(along, uniform(keys[1], places, 0))) < limit


def test_pairs_of_draws_fill_the_square() -> None:
    keys = sequence_keys(5, "mask", 0, np.arange(200_000))
    a, b = (integers(keys, 0, draw, 20) for draw in (0, 1))
    assert abs(chi_square(np.bincount(a * 20 + b, minlength=400))) < 4


def test_no_two_places_share_their_bits() -> None:
    keys = sequence_keys(1, "mask", 0, np.arange(300))
    values = bits(keys[:, None, None], np.arange(100)[:, None], 0)
    more = bits(keys[:, None], np.arange(100), 1)
    assert len(np.unique(np.concatenate([values.ravel(), more.ravel()]))) == 60_000
