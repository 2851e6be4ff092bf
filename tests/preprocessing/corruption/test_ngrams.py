from collections import Counter
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
from schemes import chosen as part_of
from wordly import (
    check_chosen,
    check_fates,
    check_plainly,
    draw,
    each,
    masked_plainly,
    shown,
    shuffled,
    within,
    worded,
)

from preprocessing.corruption import NgramsConfig, Sequences

SCHEME = NgramsConfig(kind="ngrams")
HARMONIC = (1, 1 / 2, 1 / 3)


def runs_plainly(words, second: int, limit: int, key, weights=HARMONIC, max_words: int = 10**9):
    """The runs that ALBERT's create_pretraining_data.py takes, in the order of taking."""
    covered: set[int] = set()
    for turn, first in enumerate(shuffled(range(len(words)), key, 0)):
        if len(covered) >= limit or max_words == 0:
            break
        candidates = [words[first]]
        for before, word in zip(
            words[first:], words[first + 1 : first + len(weights)], strict=False
        ):
            if word[0] != before[-1] + 1 or word[0] == second:
                break
            candidates.append(candidates[-1] + word)
        possible = np.array(weights[: len(candidates)])
        n = int(np.searchsorted(np.cumsum(possible), draw(key, turn, 3) * possible.sum(), "right"))
        while n >= 0 and (len(covered) + len(candidates[n]) > limit or n >= max_words):
            n -= 1
        if n < 0 or covered & {*candidates[n]}:
            continue
        covered |= {*candidates[n]}
        max_words -= n + 1
        yield candidates[n]


def plainly(sequences: Sequences, weights=HARMONIC):
    parts = zip(each(sequences, "ngrams"), sequences.first_lengths.tolist(), strict=True)
    for (tokens, words, key), second in parts:
        limit = max(1, round(len(tokens) * 0.15))
        runs = runs_plainly(words, second, limit, key, weights)
        covered = sorted(place for run in runs for place in run)
        yield masked_plainly(tokens, covered, key), covered, [tokens[one] for one in covered]


def test_worked_example() -> None:
    tokens, targets = shown(NgramsConfig(kind="ngrams", share=0.3), 9)
    expected = "[CLS] un ##aff ##able man [SEP] he [MASK] [MASK] [MASK] a store . [SEP]"
    assert tokens == expected.split()
    assert targets == [(6, "he"), (7, "walk"), (8, "##ed"), (9, "to")]


@given(worded(80))
def test_equals_a_plain_loop(sequences: Sequences) -> None:
    check_plainly(SCHEME, sequences, plainly(sequences))


@given(worded(80))
def test_weights_of_the_configuration_are_obeyed(sequences: Sequences) -> None:
    weights = (0.1, 0.0, 0.2, 0.7)
    scheme = NgramsConfig(kind="ngrams", max_n=4, weights=weights)
    check_plainly(scheme, sequences, plainly(sequences, weights))


def test_weights_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="give max_n = 3 of them"):
        NgramsConfig(kind="ngrams", weights=(1.0, 2.0))
    with pytest.raises(ValueError, match="must not be 0"):
        NgramsConfig(kind="ngrams", max_n=2, weights=(0.0, 2.0))


@given(worded(), st.integers(0, 5), st.randoms(use_true_random=False))
def test_original_is_rebuilt_from_the_targets(sequences: Sequences, epoch: int, random) -> None:
    corrupted = SCHEME.corrupt(CONTEXT, sequences, seed=3, epoch=epoch)
    check_chosen(sequences, corrupted)
    check_bounds(SCHEME, CONTEXT, sequences, corrupted)
    assert (restored(corrupted) == sequences.tokens).all()
    counts = SCHEME.num_targets(sequences.lengths)
    for (_, words, _), own, count in zip(
        each(sequences, ""), apart(corrupted), counts, strict=True
    ):
        assert own["masked_lm places"] or all(len(word) > count for word in words)
    some = random.sample(range(len(counts)), random.randint(1, len(counts)))
    check_purity(SCHEME, CONTEXT, sequences, some)


def test_shortest_sequences() -> None:
    given = from_lists([[7], [2, 3], [2, 9, 3]], marks=[[1], [0] * 2, [0, 1, 0]])
    corrupted = SCHEME.corrupt(CONTEXT, given, seed=1, epoch=0)
    assert [own["masked_lm places"] for own in apart(corrupted)] == [[0], [], [1]]
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


def test_runs_of_real_text_are_as_long_as_published(prose) -> None:
    """6/11, 3/11, 2/11, of mean 1.636; the first run of a sequence is in no other's way."""
    context, given = prose(128)
    some = part_of(given, range(3000))
    corrupted = NgramsConfig(kind="ngrams", share=0.5).corrupt(context, some, seed=1, epoch=0)
    chosen = np.zeros(len(some.tokens), dtype=bool)
    chosen[corrupted.targets["masked_lm"].places] = True
    lengths: Counter[int] = Counter()
    for own, (_, words, key) in zip(chosen.reshape(-1, 128), each(some, "ngrams"), strict=True):
        first = next(runs_plainly(words, 128, 64, key))
        assert own[first].all()
        lengths[sum(word[0] in first for word in words)] += 1
    count = lengths.total()
    for n, share in ((1, 6 / 11), (2, 3 / 11), (3, 2 / 11)):
        assert within(lengths[n] / count, share, count)
    mean = sum(n * hits for n, hits in lengths.items()) / count
    assert abs(mean - 18 / 11) < 4 * 0.777 / count**0.5 + 0.02, "the last words have less room"


def test_static_copy_equals_dynamic_epoch(tmp_path: Path) -> None:
    check_static_is_dynamic(tmp_path, {"kind": "ngrams", "max_targets": 4})
