"""What the schemes share that choose words: a sentence to show them on, and plain references."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from hypothesis import strategies as st
from schemes import CONTEXT, SPECIAL, from_lists
from schemes import apart as taken_apart

from preprocessing.corruption import Context, Corrupted, Scheme, Sequences, SpecialIds
from preprocessing.draws import uniform
from preprocessing.marks import WORD

SHOWN = "[CLS] un ##aff ##able man [SEP] he walk ##ed to a store . [SEP]".split()  # noqa: SIM905
_PIECES = sorted({*SHOWN} - {"[CLS]", "[SEP]"})
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_PIECES, "boy", "shop", "stroll"]
SMALL = SpecialIds(len(VOCABULARY), pad=0, start=2, separator=3, mask=4)


def example(number: int) -> Sequences:
    """The sentence as the sequence of a number."""
    marks = [WORD * (not piece.startswith(("##", "["))) for piece in SHOWN]
    tokens = [VOCABULARY.index(piece) for piece in SHOWN]
    return from_lists([tokens], ids=[number], first_lengths=[6], marks=[marks])


def shown(
    scheme: Scheme, number: int, context: Context | None = None
) -> tuple[list[str], list[tuple[int, str]]]:
    """What becomes of the sentence, and what is asked of it, in pieces."""
    corrupted = scheme.corrupt(context or Context(SMALL), example(number), seed=1, epoch=0)
    (found,) = taken_apart(corrupted)
    labels = [VOCABULARY[int(one)] for one in found["masked_lm labels"]]
    places = [int(one) for one in found["masked_lm places"]]
    return [VOCABULARY[int(one)] for one in found["tokens"]], list(zip(places, labels, strict=True))


@st.composite
def worded(draw: st.DrawFn, max_length: int = 40) -> Sequences:
    """Sequences of tokens of which some are special ones, with words of a few pieces."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    lengths = draw(st.lists(st.integers(1, max_length), min_size=1, max_size=8))
    begins, specials = draw(st.sampled_from([0.3, 0.7, 1.0])), draw(st.sampled_from([0.0, 0.1]))
    tokens, marks, first_lengths = [], [], []
    for length in lengths:
        own = random.integers(5, SPECIAL.size, length)
        own[random.random(length) < specials] = SPECIAL.separator
        if length > 2:
            own[0], own[-1] = SPECIAL.start, SPECIAL.separator
        own_marks = WORD * (random.random(length) < begins)
        own_marks[own < 5] = 0
        tokens.append(own.tolist())
        marks.append(own_marks.tolist())
        first_lengths.append(int(random.integers(1, length + 1)))
    ids = random.integers(0, 2**63, len(lengths)).tolist()
    return from_lists(tokens, ids=ids, first_lengths=first_lengths, marks=marks)


def each(sequences: Sequences, purpose: str, *, seed: int = 1, epoch: int = 0):
    """Tokens, words (lists of places) and key of each sequence, as plain values."""
    keys = sequences.keys(seed, purpose, epoch)
    for number, key in enumerate(keys):
        own = slice(int(sequences.offsets[number]), int(sequences.offsets[number + 1]))
        tokens = sequences.tokens[own].tolist()
        marks = sequences.marks[own].tolist()
        yield tokens, words_of(tokens, marks, int(sequences.first_lengths[number])), key


def words_of(
    tokens: Sequence[int], marks: Sequence[int], second: int, special: SpecialIds = SPECIAL
) -> list[list[int]]:
    """Places of the tokens of each word."""
    words: list[list[int]] = []
    for place, token in enumerate(tokens):
        if token in (special.pad, special.start, special.separator):
            continue
        goes_on = bool(words) and words[-1][-1] == place - 1 and place != second
        if goes_on and not marks[place] & WORD:
            words[-1].append(place)
        else:
            words.append([place])
    return words


def draw(key: np.uint64, index: int, number: int) -> float:
    return float(uniform(np.uint64(key), index, number))


def shuffled(items: Iterable, key: np.uint64, number: int) -> Iterator:
    """In the order of draws, by Fisher and Yates from the front."""
    left = list(items)
    for turn in range(len(left)):
        other = turn + int(draw(key, turn, number) * (len(left) - turn))
        left[turn], left[other] = left[other], left[turn]
        yield left[turn]


def masked_plainly(
    tokens: Sequence[int],
    places: Sequence[int],
    key: np.uint64,
    special: SpecialIds = SPECIAL,
    mask_probability: float = 0.8,
    random_probability: float = 0.1,
) -> list[int]:
    """80 / 10 / 10 for each place."""
    tokens = list(tokens)
    for place in places:
        fate = draw(key, place, 1)
        if fate < mask_probability:
            tokens[place] = special.mask
        elif fate < mask_probability + random_probability:
            tokens[place] = int(draw(key, place, 2) * special.size)
    return tokens


def check_plainly(scheme: Scheme, sequences: Sequences, expected, context: Context = CONTEXT):
    """Equal to the reference: of each sequence its tokens, and places and labels of targets."""
    corrupted = scheme.corrupt(context, sequences, seed=1, epoch=0)
    for found, (tokens, places, labels) in zip(taken_apart(corrupted), expected, strict=True):
        assert found["masked_lm places"] == places
        assert found["masked_lm labels"] == labels
        assert found["tokens"] == tokens


def check_chosen(sequences: Sequences, corrupted: Corrupted, special: SpecialIds = SPECIAL):
    """No special token is chosen, what is asked is what was there, and the rest is untouched."""
    targets = corrupted.targets["masked_lm"]
    assert (sequences.tokens[targets.places] == targets.labels).all()
    reserved = [special.pad, special.start, special.separator]
    assert not np.isin(targets.labels, reserved).any()
    rest = np.ones(len(sequences.tokens), dtype=bool)
    rest[targets.places] = False
    assert (corrupted.inputs.tokens[rest] == sequences.tokens[rest]).all()


def check_fates(corrupted: Corrupted, special: SpecialIds) -> None:
    """80 % masked, 10 % random and 10 % as they were, within four standard errors."""
    targets = corrupted.targets["masked_lm"]
    now, count = corrupted.inputs.tokens[targets.places], len(targets.places)
    by_chance = 0.1 / special.size
    for hits, share in (
        ((now == special.mask).sum(), 0.8 + by_chance),
        ((now == targets.labels).sum(), 0.1 + by_chance),
    ):
        assert within(hits / count, share, count)


def within(found: float, share: float, count: int) -> bool:
    """Four standard errors of a share of so many."""
    return abs(found - share) < 4 * (share * (1 - share) / count) ** 0.5
