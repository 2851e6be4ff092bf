from pathlib import Path

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

from preprocessing.corruption import EveryConfig

EVERY = EveryConfig(kind="every")


def test_worked_example() -> None:
    tokens = [SPECIAL.start, 5, 6, SPECIAL.separator]
    (found,) = apart(EVERY.corrupt(CONTEXT, from_lists([tokens]), seed=1, epoch=0))
    assert found == {
        "tokens": tokens,
        "masked_lm places": [0, 1, 2, 3],
        "masked_lm labels": tokens,
    }
    check_nothing(EVERY, CONTEXT)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.randoms())
def test_every_token_is_its_own_target_unless_it_is_alone(lengths: list[int], random) -> None:
    given = framed(lengths)
    corrupted = EVERY.corrupt(CONTEXT, given, seed=1, epoch=0)
    for one, length in zip(apart(corrupted), lengths, strict=True):
        assert one["masked_lm labels"] == (one["tokens"] if length > 1 else [])
        assert one["masked_lm places"] == list(range(length if length > 1 else 0))
    check_bounds(EVERY, CONTEXT, given, corrupted)
    check_purity(EVERY, CONTEXT, given, random.sample(range(len(lengths)), len(lengths)))


@pytest.mark.parametrize("length", [128, 512])
def test_a_million_real_tokens_are_all_targets(prose, length: int) -> None:
    context, given = prose(length)
    corrupted = EVERY.corrupt(context, given, seed=1, epoch=0)
    targets = corrupted.targets["masked_lm"]
    assert len(targets.places) == len(given.tokens) >= 1e6
    assert (targets.labels == corrupted.inputs.tokens).all()
    assert (corrupted.inputs.tokens == given.tokens).all()


def test_static_copy_equals_dynamic_epoch(tmp_path: Path) -> None:
    arrays = check_static_is_dynamic(tmp_path, {"kind": "every"})
    labels = arrays["targets/masked_lm/labels"]
    assert (labels >= 0).sum() == (arrays["sequence_ids"] > 0).sum() > 0
