import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from schemes import (
    SPECIAL,
    apart,
    check_bounds,
    check_nothing,
    check_purity,
    check_static_is_dynamic,
    from_lists,
    restored,
)
from wordly import (
    SHOWN,
    SMALL,
    VOCABULARY,
    check_chosen,
    check_fates,
    check_plainly,
    draw,
    each,
    masked_plainly,
    shown,
    within,
    worded,
)

from preprocessing.corruption import Context, Sequences, SmoothedConfig

SCHEME = SmoothedConfig(kind="smoothed")
COUNTS = np.random.default_rng(0).integers(0, 5000, SPECIAL.size)
CONTEXT = Context(SPECIAL, {"frequencies": COUNTS})


def plainly(sequences: Sequences):
    """torch.multinomial without replacement, by exponential times."""
    for tokens, words, key in each(sequences, "smoothed"):
        times = [
            (-math.log1p(-draw(key, place, 0)) / max(1, COUNTS[tokens[place]]) ** -0.7, place)
            for word in words
            for place in word
        ]
        covered = sorted(place for _, place in sorted(times)[: math.ceil(len(tokens) * 0.15)])
        yield masked_plainly(tokens, covered, key), covered, [tokens[one] for one in covered]


EXAMPLE_COUNTS = [35, 15, 40, 300, 1800, 50, 900, 2700, 2500, 60, 5000]


def test_worked_example() -> None:
    counts = dict(zip(SHOWN[1:5] + SHOWN[6:13], EXAMPLE_COUNTS, strict=True))
    frequencies = np.array([counts.get(piece, 0) for piece in VOCABULARY])
    tokens, targets = shown(SCHEME, 4, Context(SMALL, {"frequencies": frequencies}))
    expected = "[CLS] un [MASK] [MASK] man [SEP] he [MASK] ##ed to a store . [SEP]"
    assert tokens == expected.split()
    assert targets == [(2, "##aff"), (3, "##able"), (7, "walk")]


@given(worded(80))
def test_equals_a_plain_loop(sequences: Sequences) -> None:
    check_plainly(SCHEME, sequences, plainly(sequences), CONTEXT)


@given(worded(), st.integers(0, 5), st.randoms(use_true_random=False))
def test_exactly_so_many_are_chosen_and_rebuilt(sequences: Sequences, epoch: int, random) -> None:
    corrupted = SCHEME.corrupt(CONTEXT, sequences, seed=3, epoch=epoch)
    check_chosen(sequences, corrupted)
    check_bounds(SCHEME, CONTEXT, sequences, corrupted)
    assert (restored(corrupted) == sequences.tokens).all()
    for (tokens, words, _), own in zip(each(sequences, ""), apart(corrupted), strict=True):
        plain = sum(map(len, words))
        assert len(own["masked_lm places"]) == min(plain, math.ceil(0.15 * len(tokens)))
    some = random.sample(range(len(sequences.ids)), random.randint(1, len(sequences.ids)))
    check_purity(SCHEME, CONTEXT, sequences, some)


def test_shortest_sequences() -> None:
    given = from_lists([[7], [2, 3], [2, 9, 3]])
    corrupted = SCHEME.corrupt(CONTEXT, given, seed=1, epoch=0)
    assert [own["masked_lm places"] for own in apart(corrupted)] == [[0], [], [1]]
    check_nothing(SCHEME, CONTEXT)


def test_two_tokens_are_chosen_by_their_weights() -> None:
    """The first one's chance is w / (w + v), and of three the second one's what is left."""
    counts = np.ones(SPECIAL.size, dtype=np.int64)
    counts[[10, 11, 12]] = 100, 1000, 10_000
    context = Context(SPECIAL, {"frequencies": counts})
    given = from_lists([[10, 11, 12]] * 20_000)
    weights = np.array([100, 1000, 10_000]) ** -0.7
    chances = weights / weights.sum()
    one = SCHEME.corrupt(context, given, seed=1, epoch=0).targets["masked_lm"]
    for token, chance in zip((10, 11, 12), chances, strict=True):
        assert within((one.labels == token).mean(), chance, 20_000)
    two = SmoothedConfig(kind="smoothed", share=0.5).corrupt(context, given, seed=1, epoch=0)
    left = (two.targets["masked_lm"].labels == 12).mean() * 2
    first, second, third = chances
    expected = third + first * third / (1 - first) + second * third / (1 - second)
    assert within(left, expected, 20_000)
    level = SmoothedConfig(kind="smoothed", smoothing=0.0).corrupt(context, given, seed=1, epoch=0)
    assert within((level.targets["masked_lm"].labels == 10).mean(), 1 / 3, 20_000)


@pytest.mark.parametrize(("length", "count"), [(128, 20), (512, 77)])
def test_a_million_real_tokens(prose, length: int, count: int) -> None:
    context, given = prose(length)
    counts = np.bincount(given.tokens, minlength=context.special.size)
    context = Context(context.special, {"frequencies": counts})
    corrupted = SCHEME.corrupt(context, given, seed=1, epoch=0)
    targets = corrupted.targets["masked_lm"]
    assert (np.bincount(targets.places // length, minlength=len(given.ids)) == count).all()
    check_chosen(given, corrupted, context.special)
    check_fates(corrupted, context.special)
    # Rare tokens are masked more often, by about the power of their counts while few are chosen.
    shares = np.bincount(targets.labels, minlength=len(counts)) / np.maximum(counts, 1)
    frequent = shares[counts > 10_000].mean()
    rare = shares[(counts > 20) & (counts < 200)].mean()
    assert rare > 10 * frequent


def test_static_copy_equals_dynamic_epoch(tmp_path: Path) -> None:
    check_static_is_dynamic(tmp_path, {"kind": "smoothed"})
