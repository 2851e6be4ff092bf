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
)

from preprocessing.corruption import BidirectionalConfig

BOTH = BidirectionalConfig(kind="bidirectional")


def test_worked_example() -> None:
    start, hi, you, end = SPECIAL.start, 5, 6, SPECIAL.separator
    given = from_lists([[start, hi, you, end], [hi]])
    assert apart(BOTH.corrupt(CONTEXT, given, seed=1, epoch=0)) == [
        {
            "tokens": [start, hi, you, end],
            "forward_lm places": [0, 1, 2],
            "forward_lm labels": [hi, you, end],
            "backward_lm places": [1, 2, 3],
            "backward_lm labels": [start, hi, you],
        },
        {
            "tokens": [hi],
            "forward_lm places": [],
            "forward_lm labels": [],
            "backward_lm places": [],
            "backward_lm labels": [],
        },
    ]
    check_nothing(BOTH, CONTEXT)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.randoms())
def test_the_backward_half_is_the_forward_half_of_the_reversed_text(lengths, random) -> None:
    given = framed(lengths)
    corrupted = BOTH.corrupt(CONTEXT, given, seed=1, epoch=0)
    for one in apart(corrupted):
        tokens, last = one["tokens"], len(one["tokens"]) - 1
        turned = from_lists([tokens[::-1]])
        (mirrored,) = apart(BOTH.corrupt(CONTEXT, turned, seed=1, epoch=0))
        assert [last - place for place in mirrored["forward_lm places"]][::-1] == one[
            "backward_lm places"
        ]
        assert mirrored["forward_lm labels"][::-1] == one["backward_lm labels"]
        assert one["forward_lm labels"] == tokens[1:]
    check_bounds(BOTH, CONTEXT, given, corrupted)
    check_purity(BOTH, CONTEXT, given, random.sample(range(len(lengths)), len(lengths)))


@pytest.mark.parametrize("length", [128, 512])
def test_a_million_real_tokens_are_predicted_in_both_directions(prose, length: int) -> None:
    context, given = prose(length)
    targets = BOTH.corrupt(context, given, seed=1, epoch=0).targets
    rows = given.tokens.reshape(-1, length)
    forward, backward = (targets[name] for name in ("forward_lm", "backward_lm"))
    assert (forward.labels.reshape(-1, length - 1) == rows[:, 1:]).all()
    assert (backward.labels.reshape(-1, length - 1) == rows[:, :-1]).all()
    for one in (forward, backward):
        assert (np.bincount(one.places // length) == length - 1).all()


def test_static_copy_equals_dynamic_epoch(tmp_path: Path) -> None:
    arrays = check_static_is_dynamic(tmp_path, {"kind": "bidirectional"})
    ids = arrays["ids"].reshape(-1)
    for name, step in (("forward_lm", 1), ("backward_lm", -1)):
        indices, labels = (arrays[f"targets/{name}/{of}"] for of in ("indices", "labels"))
        real = labels >= 0
        assert real.any()
        assert (ids[indices[real] + step] == labels[real]).all()
