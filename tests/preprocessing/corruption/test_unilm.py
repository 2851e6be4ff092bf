import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

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
    restored,
    special_set,
)

from preprocessing.corruption import Context, Corrupted, Sequences, SpecialIds, UnilmConfig
from preprocessing.corruption.unilm import Mode
from preprocessing.draws import bits, integers, sequence_keys, uniform

MODES = get_args(Mode)


def scheme(mode: str = "sequence", **settings: float) -> UnilmConfig:
    return UnilmConfig(kind="unilm", mode=mode, **settings)


def corrupt(config: UnilmConfig, given: Sequences, *, epoch: int = 0) -> Corrupted:
    return config.corrupt(CONTEXT, given, seed=1, epoch=epoch)


def in_plain_python(config: UnilmConfig, tokens: list[int], number: int, epoch: int) -> dict:
    """One sequence, place by place."""
    key = sequence_keys(1, "unilm", epoch, np.array([number]))
    left = [place for place, token in enumerate(tokens) if token not in special_set(SPECIAL)]
    budget = max(1, round(config.share * len(tokens)))
    masked: set[int] = set()
    for place in sorted(left, key=lambda one: int(bits(key, one, 0)[0])):
        if place in masked:
            continue
        draw = uniform(key, place, 3)[0]
        size = 3 if draw < config.ngram_probability / 2 else 2
        for one in range(place, place + (size if draw < config.ngram_probability else 1)):
            if one not in left or len(masked) == budget:
                break
            masked.add(one)
    shown = list(tokens)
    for place in masked:
        fate = uniform(key, place, 1)[0]
        if fate < config.mask_probability:
            shown[place] = SPECIAL.mask
        elif fate < config.mask_probability + config.random_probability:
            shown[place] = int(integers(key, place, 2, SPECIAL.size)[0])
    return {"tokens": shown, "places": sorted(masked)}


def test_worked_example() -> None:
    words = ["[CLS]", "the", "man", "went", "to", "a", "store", ".", "[SEP]", "he", "left", "[SEP]"]
    plain = sorted({*words} - {"[CLS]", "[SEP]"})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *plain]
    tokens = [vocabulary.index(word) for word in words]
    given = from_lists([tokens], ids=[116], first_lengths=[9], labels=[0])
    special = SpecialIds(len(vocabulary), pad=0, start=2, separator=3, mask=4)
    corrupted = scheme().corrupt(Context(special), given, seed=1, epoch=0)
    (found,) = apart(corrupted)
    shown = "[CLS] the man went to [MASK] store . [SEP] he left [SEP]"
    assert [vocabulary[token] for token in found["tokens"]] == shown.split()
    assert found["masked_lm places"] == [5, 6]
    assert [vocabulary[token] for token in found["masked_lm labels"]] == ["a", "store"]
    assert found["segment_ids"] == [4] * 9 + [5] * 3
    assert found["seen_by"] == [0] * 9 + [1] * 3
    key = sequence_keys(1, "unilm", 0, given.ids)
    assert 0.1 <= uniform(key, 5, 3)[0] < 0.2, "a bigram"


@pytest.mark.parametrize(
    ("mode", "segment_ids", "seen_by", "label"),
    [
        ("bidirectional", [0, 0, 0, 0, 1, 1, 1], [0] * 7, 1),
        ("sequence", [4, 4, 4, 4, 5, 5, 5], [0, 0, 0, 0, 1, 1, 1], -1),
        ("left_to_right", [2] * 7, [1] * 7, -1),
        ("right_to_left", [3] * 7, [2] * 7, -1),
    ],
)
def test_modes(mode: str, segment_ids: list[int], seen_by: list[int], label: int) -> None:
    given = from_lists([[2, 8, 9, 3, 10, 11, 3]], first_lengths=[4], labels=[1])
    corrupted = corrupt(scheme(mode), given)
    (found,) = apart(corrupted)
    assert found["segment_ids"] == segment_ids
    assert found["seen_by"] == seen_by
    assert corrupted.inputs.labels.tolist() == [label]
    check_nothing(scheme(mode), CONTEXT)
    others = apart(corrupt(scheme("sequence"), given))[0]
    assert found["tokens"] == others["tokens"], "all modes mask alike"


def test_shortest_sequences() -> None:
    given = from_lists([[2], [2, 3], [2, 9, 3], [9], [9, 8], [2, 9, 3, 3]])
    corrupted = corrupt(scheme(), given)
    places = [one["masked_lm places"] for one in apart(corrupted)]
    assert places[:4] == [[], [], [1], [0]]
    assert len(places[4]) == 1
    assert places[5] == [1]
    check_bounds(scheme(), CONTEXT, given, corrupted)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=8),
    st.integers(0, 3),
    st.sampled_from([0.05, 0.15, 0.6, 0.99]),
    st.sampled_from([0.0, 0.2, 1.0]),
    st.randoms(),
)
def test_a_plain_loop_gives_the_same(lengths, epoch, share, ngrams, random) -> None:
    given = framed(lengths)
    config = scheme(share=share, ngram_probability=ngrams)
    corrupted = corrupt(config, given, epoch=epoch)
    for number, one in enumerate(apart(corrupted)):
        begin, end = given.offsets[number : number + 2]
        expected = in_plain_python(config, given.tokens[begin:end].tolist(), number, epoch)
        assert one["tokens"] == expected["tokens"]
        assert one["masked_lm places"] == expected["places"]
    assert (restored(corrupted) == given.tokens).all()
    if max(lengths) > 2:
        assert len(corrupted.targets["masked_lm"].places) > 0
    check_bounds(config, CONTEXT, given, corrupted)
    check_purity(config, CONTEXT, given, random.sample(range(len(lengths)), len(lengths)))


def share_of(hits: int, count: int, expected: float) -> None:
    assert abs(hits / count - expected) < 4 * math.sqrt(expected * (1 - expected) / count)


@pytest.mark.parametrize(("length", "count"), [(128, 19), (512, 77)])
def test_a_million_real_tokens_have_the_published_shares(prose, length: int, count: int) -> None:
    context, given = prose(length)
    corrupted = scheme().corrupt(context, given, seed=1, epoch=0)
    targets = corrupted.targets["masked_lm"]
    assert (np.bincount(targets.places // length) == count).all(), "exactly so many"
    assert not np.isin(targets.labels, list(special_set(context.special))).any()
    now, size = corrupted.inputs.tokens[targets.places], context.special.size
    share_of(int((now == context.special.mask).sum()), len(now), 0.8 + 0.1 / size)
    same = int((now == targets.labels).sum())
    share_of(same, len(now), 0.1 + 0.1 / size)


def test_one_fifth_of_what_is_masked_first_are_bigrams_and_trigrams_alike(prose) -> None:
    context, given = prose(128)
    targets = scheme().corrupt(context, given, seed=1, epoch=0).targets["masked_lm"]
    keys = np.repeat(sequence_keys(1, "unilm", 0, given.ids), 128)
    places = np.tile(np.arange(128), len(given.ids))
    visits = bits(keys, places, 0).reshape(-1, 128)
    visits[:, [0, 127]] = np.iinfo(np.uint64).max
    first = visits.argmin(axis=1)
    draws = uniform(keys, places, 3).reshape(-1, 128)[np.arange(len(first)), first]
    sizes = 1 + (draws < 0.2) + (draws < 0.1)
    for size, expected in ((1, 0.8), (2, 0.1), (3, 0.1)):
        share_of(int((sizes == size).sum()), len(sizes), expected)
    masked = np.zeros((len(first), 130), dtype=bool)
    masked[targets.places // 128, targets.places % 128] = True
    for step in range(3):
        reached = (sizes > step) & (first + step < 127)
        assert masked[reached, first[reached] + step].all()


@pytest.mark.parametrize("mode", MODES)
def test_static_copy_equals_dynamic_epoch(tmp_path: Path, mode: str) -> None:
    corruption = {"kind": "unilm", "mode": mode}
    arrays = check_static_is_dynamic(tmp_path, corruption, layout={"kind": "pairs"})
    assert (
        set(np.unique(arrays["segment_ids"][arrays["sequence_ids"] > 0]))
        == {
            "bidirectional": {0, 1},
            "sequence": {4, 5},
            "left_to_right": {2},
            "right_to_left": {3},
        }[mode]
    )
    labelled = (arrays["targets/next_sentence/labels"] >= 0).sum()
    sequences = arrays["sequence_ids"].max(axis=1).sum()
    assert labelled == (sequences if mode == "bidirectional" else 0)


def test_labels_stay_where_there_are_none() -> None:
    given = replace(framed([9]), labels=np.array([-1]))
    assert corrupt(scheme("bidirectional"), given).inputs.labels.tolist() == [-1]
