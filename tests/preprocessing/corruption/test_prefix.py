import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from schemes import (
    CONTEXT,
    SPECIAL,
    apart,
    check_bounds,
    check_nothing,
    check_purity,
    check_static_is_dynamic,
    framed,
    from_lists,
    special_set,
)

from preprocessing.corruption import Corrupted, PrefixConfig, Sequences
from preprocessing.draws import integers, sequence_keys

PREFIX = PrefixConfig(kind="prefix")
PLAIN = PrefixConfig(kind="prefix", specials=False)


def corrupt(scheme: PrefixConfig, given: Sequences, *, epoch: int = 0) -> Corrupted:
    return scheme.corrupt(CONTEXT, given, seed=1, epoch=epoch)


def test_worked_example() -> None:
    the, cat, sat, on = 5, 6, 7, 8
    tokens = [SPECIAL.start, the, cat, sat, on, SPECIAL.separator]
    given = from_lists([tokens], ids=[8])
    (found,) = apart(corrupt(PREFIX, given))
    assert found == {
        "tokens": tokens,
        "seen_by": [0, 0, 0, 1, 1, 1],
        "causal_lm places": [2, 3, 4],
        "causal_lm labels": [sat, on, SPECIAL.separator],
    }
    (found,) = apart(corrupt(PLAIN, given))
    assert found["causal_lm labels"] == [sat, on]


def test_shortest_sequences_and_none() -> None:
    given = from_lists([[9], [8, 3]] + [[2, 7, 3]] * 200)
    one, two, *threes = apart(corrupt(PREFIX, given))
    assert (one["seen_by"], one["causal_lm places"]) == ([0], [])
    assert (two["seen_by"], two["causal_lm places"]) == ([0, 1], [0])
    assert {tuple(three["seen_by"]) for three in threes} == {(0, 1, 1), (0, 0, 1)}
    for scheme in (PREFIX, PLAIN):
        check_bounds(scheme, CONTEXT, given, corrupt(scheme, given))
        check_nothing(scheme, CONTEXT)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(0, 3), st.randoms())
def test_a_plain_loop_gives_the_same(lengths: list[int], epoch: int, random) -> None:
    given = framed(lengths)
    for scheme in (PREFIX, PLAIN):
        corrupted = corrupt(scheme, given, epoch=epoch)
        for number, one in enumerate(apart(corrupted)):
            tokens = one["tokens"]
            key = sequence_keys(1, "prefix", epoch, np.array([number]))
            split = 1
            if len(tokens) > 1:
                split += int(integers(key, 0, 0, len(tokens) - 1)[0])
                assert 1 <= split <= len(tokens) - 1
            assert one["seen_by"] == [0] * split + [1] * (len(tokens) - split)
            wanted = [
                place
                for place in range(split - 1, len(tokens) - 1)
                if scheme is PREFIX or tokens[place + 1] not in special_set(SPECIAL)
            ]
            assert one["causal_lm places"] == wanted
            assert one["causal_lm labels"] == [tokens[place + 1] for place in wanted]
        check_bounds(scheme, CONTEXT, given, corrupted)
        check_purity(scheme, CONTEXT, given, random.sample(range(len(lengths)), len(lengths)))


@pytest.mark.parametrize("length", [128, 512])
def test_splits_of_a_million_real_tokens_are_uniform(prose, length: int) -> None:
    context, given = prose(length)
    corrupted = PREFIX.corrupt(context, given, seed=1, epoch=0)
    splits = (corrupted.channels["seen_by"].reshape(-1, length) == 0).sum(axis=1)
    targets = corrupted.targets["causal_lm"]
    assert (np.bincount(targets.places // length) == length - splits).all()
    assert splits.min() >= 1
    assert splits.max() <= length - 1
    count = len(splits)
    assert abs(splits.mean() - length / 2) < 4 * (length - 1) / math.sqrt(12 * count)
    halves = np.bincount((4 * (splits - 1)) // (length - 1), minlength=4)
    assert (np.abs(halves - count / 4) < 4 * math.sqrt(count * 3 / 16)).all()
    plain = PLAIN.corrupt(context, given, seed=1, epoch=0).targets["causal_lm"]
    assert len(plain.places) == len(targets.places) - count
    assert not np.isin(plain.labels, list(special_set(context.special))).any()


def test_epochs_split_anew() -> None:
    given = framed([128] * 50)
    first, second = (corrupt(PREFIX, given, epoch=epoch).channels["seen_by"] for epoch in (0, 1))
    assert (first != second).any()


def test_static_copy_equals_dynamic_epoch(tmp_path: Path) -> None:
    arrays = check_static_is_dynamic(tmp_path, {"kind": "prefix"}, frame="sep")
    seen_by = arrays["channels/seen_by"]
    assert (seen_by[arrays["sequence_ids"] == 0] == 0).all()
    real = arrays["targets/causal_lm/labels"] >= 0
    assert real.sum() == (seen_by == 1).sum() > 0
