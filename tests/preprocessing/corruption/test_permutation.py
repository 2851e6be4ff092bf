"""XLNet's targets and orders, against the reference's walk driven by the same draws."""

import math
from fractions import Fraction
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
    from_lists,
)

from preprocessing.corruption import Context, PermutationConfig, Sequences, SpecialIds
from preprocessing.draws import bits, integers, sequence_keys, uniform

XLNET = PermutationConfig(kind="permutation")
END = 7
WITH_END = Context(SpecialIds(size=1000, pad=0, start=2, separator=3, mask=4, end=END))

Row = tuple[list[int], list[int], bool]


def make(rows: list[Row], ids: list[int] | None = None) -> Sequences:
    return from_lists(
        [tokens for tokens, _, _ in rows],
        ids=ids,
        marks=[marks for _, marks, _ in rows],
        backward=[backward for *_, backward in rows],
    )


# -- the reference -----------------------------------------------------------------------------


def sample_mask(
    starts: list[bool], goal: int, low: int, key: np.ndarray, context: int, max_span: int
) -> set[int]:
    """``_sample_mask`` over pieces in the order of the text; places within the half."""
    picked: set[int] = set()
    at = 0
    shares = np.cumsum([1 / n for n in range(1, max_span + 1)])
    while at < len(starts) and len(picked) < goal:
        u = float(uniform(key, low + at, 0)[0]) * shares[-1]
        n = 1 + int(np.searchsorted(shares, u, side="right"))
        n = min(n, max_span, goal - len(picked))
        left = int(integers(key, low + at, 1, n * context)[0])
        begin = at + left
        while begin < len(starts) and not starts[begin]:
            begin += 1
        if begin >= len(starts):
            break
        end, count = begin + 1, 1
        while end < len(starts):
            if starts[begin]:  # the quirk: not the piece at ``end``
                count += 1
                if count > n:
                    break
            end += 1
        if end >= len(starts):
            break
        picked |= set(range(begin, end))
        at = end + n * context - left
    return picked


def reference(
    row: Row, id: int, context: Context, *, seed: int, epoch: int, alpha: int, max_span: int
) -> tuple[list[int], list[int]]:
    """Places of targets, and ranks."""
    tokens, marks, backward = row
    special, size = context.special, len(tokens)
    key = sequence_keys(seed, "permutation", epoch, np.array([id]))
    functional = {special.start, special.separator, special.pad}
    total = max(1, math.floor(Fraction(size, alpha) + Fraction(1, 2)))
    halves = [range(size // 2), range(size // 2, size)]
    left = total
    targets: list[int] = []
    ranks: list[int] = []
    for number, half in enumerate(halves):
        goal = min(-(-total // 2) if number == 0 else left, len(half))
        if half.start == 0:
            goal = min(goal, max(0, sum(tokens[p] not in functional for p in half) - 1))
        left -= goal
        text = list(reversed(half)) if backward else list(half)
        starts = [marks[p] & 1 or tokens[p] in functional | {special.end} for p in text]
        picked = {text[p] for p in sample_mask(starts, goal, half.start, key, alpha, max_span)}
        rest = [p for p in half if p not in picked]
        rest.sort(key=lambda p: int(bits(key, p, 2)[0]) >> 11)
        picked |= set(rest[: goal - len(picked)])
        own = sorted(p for p in picked if tokens[p] not in functional)
        ordered = sorted(
            {*own, *(p for p in half if tokens[p] in functional)},
            key=lambda p: int(bits(key, p, 3)[0]),
        )
        base = max(ranks, default=-1) + 1
        first = base + (len(ordered) < len(half))
        ranks += [first + ordered.index(p) if p in ordered else base for p in half]
        targets += own
    return targets, ranks


TOKENS = st.sampled_from([2, 3, END, *range(8, 40)])
ROWS = st.lists(
    st.lists(st.tuples(TOKENS, st.integers(0, 3)), min_size=1, max_size=70).flatmap(
        lambda pairs: st.tuples(
            st.just([token for token, _ in pairs]),
            st.just([mark for _, mark in pairs]),
            st.booleans(),
        )
    ),
    min_size=1,
    max_size=6,
)


@given(ROWS, st.integers(0, 2**63), st.integers(0, 3), st.integers(2, 8), st.integers(1, 6))
def test_targets_and_ranks_are_the_references(
    rows: list[Row], seed: int, epoch: int, alpha: int, max_span: int
) -> None:
    config = PermutationConfig(kind="permutation", context=alpha, max_span=max_span)
    for context in (CONTEXT, WITH_END):
        found = apart(config.corrupt(context, make(rows), seed=seed, epoch=epoch))
        for id, (row, own) in enumerate(zip(rows, found, strict=True)):
            targets, ranks = reference(
                row, id, context, seed=seed, epoch=epoch, alpha=alpha, max_span=max_span
            )
            assert own["permutation_lm places"] == targets
            assert own["permutation_lm labels"] == [row[0][place] for place in targets]
            assert own["ranks"] == ranks
            assert own["tokens"] == row[0]
            assert own["directions"] == [-1 if row[2] else 1] * len(row[0])


# -- worked examples, corner cases -------------------------------------------------------------


def test_worked_example() -> None:
    words = ["we", "all", "saw", "it", "come", "back", "[SEP]", "[CLS]"]
    tokens = [10, 11, 12, 13, 14, 15, SPECIAL.separator, SPECIAL.start]
    config = PermutationConfig(kind="permutation", context=3)
    given = make([(tokens, [1] * 6 + [0] * 2, False)], ids=[60])
    (found,) = apart(config.corrupt(CONTEXT, given, seed=1, epoch=0))
    assert found["permutation_lm places"] == [1, 3, 5]
    assert found["ranks"] == [0, 2, 0, 1, 3, 5, 4, 6]
    assert found["segment_ids"] == [0, 0, 0, 0, 0, 0, 0, 2]
    assert found["directions"] == [1] * 8
    ranks = found["ranks"]

    def seen(word: str) -> str:
        own = words.index(word)
        target = own in found["permutation_lm places"]
        return " ".join(
            other
            for other, rank in zip(words, ranks, strict=True)
            if (rank < ranks[own] if target else rank <= ranks[own])
        )

    assert seen("it") == "we saw"
    assert seen("all") == "we saw it"
    assert seen("come") == "we all saw it come"
    assert seen("back") == "we all saw it come [SEP]"
    assert seen("[SEP]") == "we all saw it come [SEP]"


def test_512_tokens_have_85_picks_43_of_them_in_the_first_half() -> None:
    given = make([(list(range(10, 522)), [1] * 512, turn % 2 == 1) for turn in range(20)])
    corrupted = XLNET.corrupt(CONTEXT, given, seed=1, epoch=0)
    places = corrupted.targets["permutation_lm"].places
    halves = np.bincount(places // 256, minlength=40).reshape(-1, 2)
    assert halves.tolist() == [[43, 42]] * 20
    assert XLNET.num_picks(np.array([1, 2, 8, 9, 128, 512])).tolist() == [1, 1, 1, 2, 21, 85]


def test_special_tokens_are_no_targets_and_lower_their_number() -> None:
    tokens = list(range(10, 522))
    for place in (300, 510):
        tokens[place] = SPECIAL.separator
    tokens[511] = SPECIAL.start
    given = make([(tokens, [1] * 512, False)] * 300)
    corrupted = XLNET.corrupt(CONTEXT, given, seed=1, epoch=0)
    targets = corrupted.targets["permutation_lm"]
    assert not np.isin(targets.labels, [SPECIAL.start, SPECIAL.separator]).any()
    counts = np.bincount(targets.places // 512)
    assert counts.max() == 85
    assert 82 <= counts.min() < 85, "three special tokens"


@pytest.mark.parametrize(
    ("tokens", "most"),
    [([9], 0), ([9, 9], 1), ([9, 9, 9], 1), ([3], 0), ([9, 3, 2], 1), ([2, 9, 3], 1)],
)
def test_shortest_sequences(tokens: list[int], most: int) -> None:
    given = make([(tokens, [1] * len(tokens), False)] * 40)
    corrupted = XLNET.corrupt(CONTEXT, given, seed=1, epoch=0)
    check_bounds(XLNET, CONTEXT, given, corrupted)
    counts = {len(own["permutation_lm places"]) for own in apart(corrupted)}
    assert max(counts) <= most
    if set(tokens) == {9}:
        assert counts == {most}


@given(ROWS, st.integers(0, 2**32))
def test_every_query_sees_a_key_and_no_target_itself(rows: list[Row], seed: int) -> None:
    """Ranks are dense; targets and special tokens have their own, the second half higher ones."""
    given = make(rows)
    corrupted = XLNET.corrupt(CONTEXT, given, seed=seed, epoch=0)
    check_bounds(XLNET, CONTEXT, given, corrupted)
    for own, (tokens, _, _) in zip(apart(corrupted), rows, strict=True):
        ranks = own["ranks"]
        assert sorted(set(ranks)) == list(range(max(ranks) + 1))
        targets = own["permutation_lm places"]
        for place in targets:
            assert ranks.count(ranks[place]) == 1
            assert ranks[place] > 0, "somebody stands before it"
        middle = len(tokens) // 2
        assert max(ranks[:middle], default=-1) < min(ranks[middle:])
        plain = [token not in (0, 2, 3) for token in tokens]
        kept = [plain[place] and ranks[place] == 0 for place in range(max(1, middle))]
        assert any(kept) == any(plain[: max(1, middle)])
        if all(plain) and len(plain) >= 2:
            assert targets, "something is asked"


@given(ROWS, st.randoms(use_true_random=False))
def test_a_sequence_is_ordered_alike_in_any_company(rows: list[Row], random) -> None:
    some = random.sample(range(len(rows)), random.randint(1, len(rows)))
    check_purity(XLNET, CONTEXT, make(rows), some)


def test_of_nothing_nothing() -> None:
    check_nothing(XLNET, CONTEXT)
    corrupted = XLNET.corrupt(CONTEXT, from_lists([]), seed=1, epoch=0)
    assert corrupted.channels.keys() == {"ranks", "segment_ids", "directions"}


def test_segments_end_where_the_first_one_does() -> None:
    given = from_lists(
        [[8, 9, 3, 10, 3, 2], [2, 8, 3]],
        first_lengths=[3, 3],
        marks=[[1] * 6, [1] * 3],
    )
    found = apart(XLNET.corrupt(CONTEXT, given, seed=1, epoch=0))
    assert [own["segment_ids"] for own in found] == [[0, 0, 0, 1, 1, 2], [2, 0, 0]]


def test_a_backward_sequence_is_walked_from_its_end() -> None:
    """Reversed tokens and marks give the reversed targets where the halves are alike."""
    tokens, marks = list(range(10, 74)), [1, 0, 0, 1] * 16
    forward = make([(tokens, marks, False)] * 50)
    backward = make([(tokens[::-1], marks[::-1], True)] * 50)
    spans = []
    for sequences in (forward, backward):
        found = apart(XLNET.corrupt(CONTEXT, sequences, seed=1, epoch=0))
        spans.append([[int(label) for label in own["permutation_lm labels"]] for own in found])
    # Longer runs of targets begin at word starts of the text in either direction.
    for rows in spans:
        begins = [
            labels[place]
            for labels in map(sorted, rows)
            for place in range(len(labels) - 1)
            if labels[place] + 1 == labels[place + 1]
            and (place == 0 or labels[place - 1] + 1 != labels[place])
        ]
        assert len(begins) > 30
        assert sum(marks[begin - 10] for begin in begins) / len(begins) > 0.7, "half by chance"


# -- closed forms ------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "counts"), [(128, (11, 10)), (512, (43, 42))])
def test_a_million_real_tokens(prose, length: int, counts: tuple[int, int]) -> None:
    context, given = prose(length, specials=False)
    corrupted = XLNET.corrupt(context, given, seed=1, epoch=0)
    targets = corrupted.targets["permutation_lm"]
    halves = np.bincount(targets.places // (length // 2)).reshape(-1, 2)
    assert (halves == counts).all()
    assert (corrupted.inputs.tokens == given.tokens).all()
    assert (targets.labels == given.tokens[targets.places]).all()
    special = context.special
    assert not np.isin(targets.labels, [special.start, special.separator, special.pad]).any()
    ranks = corrupted.channels["ranks"].reshape(len(given.ids), 2, -1)
    assert (np.bincount(ranks[:, 0].reshape(-1))[1:] == len(ranks)).all(), "each rank once"
    # Ranks are uniform over the targets: those of the first target of each row.
    firsts = np.zeros(counts[0])
    for row in ranks[:, 0]:
        firsts[row[np.flatnonzero(row)[0]] - 1] += 1
    expected = len(ranks) / counts[0]
    statistic = ((firsts - expected) ** 2 / expected).sum()
    assert abs(statistic - (counts[0] - 1)) < 4 * math.sqrt(2 * (counts[0] - 1))


def test_spans_have_the_published_lengths_and_fill_a_seventh(prose) -> None:
    """Mean length 2.190; 36 of the 43 targets of a half of 256 stand in spans."""
    draws = uniform(sequence_keys(1, "permutation", 0, np.arange(200_000)), 0, 0)
    shares = np.cumsum([1 / n for n in range(1, 6)])
    lengths = 1 + np.searchsorted(shares, draws * shares[-1], side="right")
    assert abs(lengths.mean() - 300 / 137) < 4 * lengths.std() / math.sqrt(len(lengths))
    _, given = prose(512, specials=False)
    key = sequence_keys(1, "permutation", 0, given.ids)
    found = []
    for row in range(300):
        marks = given.marks[row * 512 : row * 512 + 256] & 1
        found.append(len(sample_mask([bool(m) for m in marks], 43, 0, key[row : row + 1], 6, 5)))
    assert 34 < np.mean(found) < 38


def test_static_copy_equals_dynamic_epoch(tmp_path: Path) -> None:
    arrays = check_static_is_dynamic(
        tmp_path,
        {"kind": "permutation"},
        layout={"kind": "xlnet"},
        frame="sep_cls",
        pack=False,
    )
    assert set(arrays["channels/directions"].reshape(-1).tolist()) == {-1, 1}
    assert (arrays["targets/permutation_lm/labels"] >= 0).sum() > 0
