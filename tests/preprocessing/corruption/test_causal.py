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

from preprocessing.corruption import CausalConfig, Corrupted, Sequences

CAUSAL = CausalConfig(kind="causal")
PLAIN = CausalConfig(kind="causal", specials=False)


def corrupt(scheme: CausalConfig, given: Sequences) -> Corrupted:
    return scheme.corrupt(CONTEXT, given, seed=1, epoch=0)


def test_worked_example() -> None:
    the, cat, sat = 5, 6, 7
    given = from_lists([[SPECIAL.start, the, cat, sat, SPECIAL.separator]])
    (found,) = apart(corrupt(CAUSAL, given))
    assert found == {
        "tokens": [SPECIAL.start, the, cat, sat, SPECIAL.separator],
        "causal_lm places": [0, 1, 2, 3],
        "causal_lm labels": [the, cat, sat, SPECIAL.separator],
    }
    (found,) = apart(corrupt(PLAIN, given))
    assert found["causal_lm places"] == [0, 1, 2]
    assert found["causal_lm labels"] == [the, cat, sat]


def test_shortest_sequences_and_none() -> None:
    given = from_lists([[], [9], [8, 3], [], [2, 7, 3], [2], []])
    places = [one["causal_lm places"] for one in apart(corrupt(CAUSAL, given))]
    assert places == [[], [], [0], [], [0, 1], [], []]
    check_purity(CAUSAL, CONTEXT, given, [0])
    for scheme in (CAUSAL, PLAIN):
        check_bounds(scheme, CONTEXT, given, corrupt(scheme, given))
        check_nothing(scheme, CONTEXT)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.randoms())
def test_each_place_predicts_its_successor(lengths: list[int], random) -> None:
    given = framed(lengths)
    for scheme in (CAUSAL, PLAIN):
        corrupted = corrupt(scheme, given)
        for one in apart(corrupted):
            tokens = one["tokens"]
            pairs = list(zip(range(len(tokens)), tokens[1:], strict=False))
            if scheme is PLAIN:
                pairs = [
                    pair for pair in pairs if pair[1] not in (SPECIAL.start, SPECIAL.separator)
                ]
            assert pairs == list(zip(one["causal_lm places"], one["causal_lm labels"], strict=True))
        check_bounds(scheme, CONTEXT, given, corrupted)
        some = random.sample(range(len(lengths)), random.randint(1, len(lengths)))
        check_purity(scheme, CONTEXT, given, some)


@pytest.mark.parametrize("length", [128, 512])
def test_a_million_real_tokens_are_all_predicted_once(prose, length: int) -> None:
    context, given = prose(length)
    targets = CAUSAL.corrupt(context, given, seed=1, epoch=0).targets["causal_lm"]
    rows = given.tokens.reshape(-1, length)
    assert (targets.labels.reshape(-1, length - 1) == rows[:, 1:]).all()
    assert (np.bincount(targets.places // length) == length - 1).all()
    plain = PLAIN.corrupt(context, given, seed=1, epoch=0).targets["causal_lm"]
    assert len(plain.places) == len(rows) * (length - 2) >= 1e6
    assert not np.isin(plain.labels, list(special_set(context.special))).any()


@pytest.mark.parametrize("frame", ["sep", "none"])
def test_static_copy_equals_dynamic_epoch(tmp_path: Path, frame: str) -> None:
    arrays = check_static_is_dynamic(tmp_path, {"kind": "causal"}, frame=frame)
    indices, labels = (arrays[f"targets/causal_lm/{name}"] for name in ("indices", "labels"))
    real = labels >= 0
    ids, sequence_ids = arrays["ids"].reshape(-1), arrays["sequence_ids"].reshape(-1)
    assert (ids[indices[real] + 1] == labels[real]).all()
    assert (sequence_ids[indices[real] + 1] == sequence_ids[indices[real]]).all()
    tokens, sequences = (sequence_ids > 0).sum(), arrays["sequence_ids"].max(axis=1).sum()
    assert real.sum() == tokens - sequences > 0
