from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from schemes import (
    CONTEXT,
    apart,
    check_bounds,
    check_nothing,
    check_purity,
    check_static_is_dynamic,
    from_lists,
    restored,
)
from wordly import (
    check_chosen,
    check_fates,
    check_plainly,
    each,
    masked_plainly,
    shown,
    shuffled,
    worded,
)

from preprocessing.corruption import Sequences, WholeWordConfig

SCHEME = WholeWordConfig(kind="whole_word")


def plainly(sequences: Sequences, share: float = 0.15):
    """As create_pretraining_data.py does it."""
    for tokens, words, key in each(sequences, "whole_word"):
        num_to_predict = max(1, round(len(tokens) * share))
        covered: list[int] = []
        for word in shuffled(words, key, 0):
            if len(covered) >= num_to_predict:
                break
            if len(covered) + len(word) > num_to_predict:
                continue
            covered += word
        covered.sort()
        yield masked_plainly(tokens, covered, key), covered, [tokens[one] for one in covered]


def test_worked_example() -> None:
    tokens, targets = shown(SCHEME, 1)
    expected = "[CLS] un ##aff ##able man [SEP] he [MASK] [MASK] to a store . [SEP]"
    assert tokens == expected.split()
    assert targets == [(7, "walk"), (8, "##ed")]


@given(worded())
def test_equals_a_plain_loop(sequences: Sequences) -> None:
    check_plainly(SCHEME, sequences, plainly(sequences))


@given(worded(), st.integers(0, 5), st.randoms(use_true_random=False))
def test_words_are_chosen_whole_and_rebuilt(sequences: Sequences, epoch: int, random) -> None:
    corrupted = SCHEME.corrupt(CONTEXT, sequences, seed=3, epoch=epoch)
    check_chosen(sequences, corrupted)
    check_bounds(SCHEME, CONTEXT, sequences, corrupted)
    assert (restored(corrupted) == sequences.tokens).all()
    counts = SCHEME.num_targets(sequences.lengths)
    chosen = [own["masked_lm places"] for own in apart(corrupted)]
    for (_, words, _), places, count in zip(each(sequences, ""), chosen, counts, strict=True):
        assert all(set(word) <= {*places} or not {*word} & {*places} for word in words)
        assert places or all(len(word) > count for word in words)
    some = random.sample(range(len(counts)), random.randint(1, len(counts)))
    check_purity(SCHEME, CONTEXT, sequences, some)


def test_shortest_sequences() -> None:
    given = from_lists(
        [[7], [2, 3], [2, 9, 3], [2, 9, 8, 3], [9]], marks=[[0], [0] * 2, [0] * 3, [0] * 4, [1]]
    )
    corrupted = SCHEME.corrupt(CONTEXT, given, seed=1, epoch=0)
    places = [own["masked_lm places"] for own in apart(corrupted)]
    assert places == [[0], [], [1], [], [0]], "two tokens of one word are more than k = 1"
    check_nothing(SCHEME, CONTEXT)


@pytest.mark.parametrize(("length", "count"), [(128, 19), (512, 77)])
def test_a_million_real_tokens(prose, length: int, count: int) -> None:
    context, given = prose(length)
    corrupted = SCHEME.corrupt(context, given, seed=1, epoch=0)
    check_chosen(given, corrupted, context.special)
    check_fates(corrupted, context.special)
    found = np.bincount(corrupted.targets["masked_lm"].places // length, minlength=len(given.ids))
    assert (found == count).mean() > 0.999, "a last gap is filled by some short word"
    assert found.max() == count
    chosen = np.zeros(len(given.tokens), dtype=bool)
    chosen[corrupted.targets["masked_lm"].places] = True
    own, marks = given.tokens, given.marks
    goes_on = (marks[1:] & 1 == 0) & (own[1:] != context.special.separator)
    goes_on &= own[:-1] != context.special.start
    goes_on &= own[1:] != context.special.start
    assert (chosen[1:] == chosen[:-1])[goes_on].all(), "all pieces of a word or none"


def test_static_copy_equals_dynamic_epoch(tmp_path: Path) -> None:
    check_static_is_dynamic(tmp_path, {"kind": "whole_word", "max_targets": 4})
