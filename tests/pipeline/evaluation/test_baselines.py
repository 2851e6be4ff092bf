from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.baselines import (
    count_tokens,
    shuffle_context,
    unigram_log_probabilities,
)
from preprocessing.corruption import Sequences, SpecialIds
from preprocessing.rows import RowSet
from preprocessing.vocabulary import Vocabulary

SPECIAL = SpecialIds(size=40, pad=0, start=1, separator=2, mask=3)
RESERVED = [0, 1, 2, 3]


def sequences_of(tokens, lengths, ids):
    """Sequences one behind the other, of one segment, without labels and marks."""
    lengths = np.asarray(lengths)
    return Sequences(
        tokens=tokens,
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        ids=np.asarray(ids, np.uint64),
        first_lengths=lengths,
        labels=np.full(len(lengths), -1),
        marks=np.zeros(0, np.uint8),
    )


def test_worked_example_of_shuffled_context():
    tokens = np.array([1, 11, 3, 13, 14, 15, 2, 1, 3, 22, 23, 24, 2])
    before = tokens.copy()
    seen = sequences_of(tokens, [7, 6], [70, 93])
    moved = shuffle_context(seen, np.array([2, 8, 10]), SPECIAL, seed=1)
    assert moved.tolist() == [1, 14, 3, 11, 15, 13, 2, 1, 3, 24, 23, 22, 2]
    assert (tokens == before).all()


@st.composite
def packed(draw):
    lengths = np.array(draw(st.lists(st.integers(3, 12), min_size=1, max_size=5)))
    starts = np.cumsum(lengths) - lengths
    size = int(lengths.sum())
    chooser = np.random.default_rng(draw(st.integers(0, 2**32)))
    tokens = np.zeros(size, dtype=np.int64)
    for start, length in zip(starts, lengths, strict=True):
        tokens[start : start + length] = chooser.integers(4, 40, length)
        tokens[start], tokens[start + length - 1] = 1, 2
    ids = chooser.choice(1000, len(lengths), replace=False).astype(np.uint64)
    plain = np.flatnonzero(tokens > 3)
    targets = plain[chooser.random(len(plain)) < 0.3]
    tokens[targets[::2]] = 3
    return sequences_of(tokens, lengths, ids), targets


@given(packed(), st.integers(0, 2**63 - 1))
def test_only_visible_plain_tokens_move_and_only_within_their_sequence(case, seed):
    seen, targets = case
    moved = shuffle_context(seen, targets, SPECIAL, seed=seed)
    fixed = np.isin(seen.tokens, RESERVED)
    fixed[targets] = True
    assert (moved[fixed] == seen.tokens[fixed]).all()
    for start, length in zip(seen.offsets[:-1], seen.lengths, strict=True):
        own = slice(start, start + length)
        assert sorted(moved[own]) == sorted(seen.tokens[own])


@given(packed(), st.integers(0, 2**63 - 1))
def test_a_sequence_is_shuffled_alike_wherever_it_stands(case, seed):
    seen, targets = case
    moved = shuffle_context(seen, targets, SPECIAL, seed=seed)
    for start, length, own_id in zip(seen.offsets[:-1], seen.lengths, seen.ids, strict=True):
        own = slice(start, start + length)
        alone = sequences_of(seen.tokens[own], [length], own_id[None])
        inside = targets[(targets >= start) & (targets < start + length)] - start
        assert (shuffle_context(alone, inside, SPECIAL, seed=seed) == moved[own]).all()


def test_every_order_of_three_tokens_is_equally_likely():
    ids = np.arange(6000, dtype=np.uint64)
    tokens = np.tile([1, 10, 11, 12, 2], len(ids))
    seen = sequences_of(tokens, np.full(len(ids), 5), ids)
    moved = shuffle_context(seen, np.zeros(0, np.int64), SPECIAL, seed=1).reshape(-1, 5)
    counts = Counter(map(tuple, moved[:, 1:4].tolist()))
    assert len(counts) == 6
    # 1000 each; the standard deviation is 29.
    assert all(abs(count - 1000) < 150 for count in counts.values())


def test_unigram_is_add_one_smoothed():
    probabilities = np.exp(unigram_log_probabilities(np.array([0, 5, 1])))
    assert probabilities == pytest.approx([1 / 9, 6 / 9, 2 / 9], rel=1e-12)


def test_tokens_are_counted_as_the_rows_hold_them(recipe):
    run = recipe()
    directory = run.preparation.examples_directory("pairs")
    vocabulary = Vocabulary.load(run.preparation.tokenizer_directory)
    rows = RowSet(directory, "train", seed=run.seed)
    expected: Counter[int] = Counter()
    for row in range(rows.num_rows[0]):
        read = rows.read(0, np.array([row]))
        expected.update(read.sequences.tokens.tolist())
    for token in ("[CLS]", "[SEP]"):
        assert expected.pop(vocabulary.tokenizer.token_to_id(token)) > 0
    counts = count_tokens(directory)
    assert {token: count for token, count in enumerate(counts.tolist()) if count} == expected


def test_static_rows_are_counted_as_they_were_before_corruption(recipe):
    preparation = recipe().preparation
    static = count_tokens(preparation.examples_directory("static"))
    dynamic = count_tokens(preparation.examples_directory("pairs"))
    assert static.sum() > 0
    assert (static == dynamic).all()
