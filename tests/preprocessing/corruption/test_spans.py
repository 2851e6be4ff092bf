import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from corpora import make_text, prepare_config, run_stages, write_documents
from hypothesis import given, settings
from hypothesis import strategies as st
from schemes import (
    SPECIAL,
    apart,
    check_bounds,
    check_nothing,
    check_purity,
    from_lists,
    restored,
)

from preprocessing.corruption import Context, Corrupted, Sequences, SpansConfig, SpecialIds
from preprocessing.draws import integers, sequence_keys, uniform
from preprocessing.marks import WORD
from preprocessing.rows import RowSet

SPANS = SpansConfig(kind="spans")
FREQUENCIES = np.zeros(SPECIAL.size, dtype=np.int64)
FREQUENCIES[5:] = np.arange(SPECIAL.size - 5) % 7
TABLES = {"frequencies": FREQUENCIES, "cumulative_frequencies": np.cumsum(FREQUENCIES)}
CONTEXT = Context(SPECIAL, TABLES)
RESERVED = {SPECIAL.pad, SPECIAL.start, SPECIAL.separator}


def corrupt(config: SpansConfig, given: Sequences, *, seed: int = 1, epoch: int = 0) -> Corrupted:
    return config.corrupt(CONTEXT, given, seed=seed, epoch=epoch)


def sequences(lengths: list[int], word: int = 3) -> Sequences:
    """[CLS], tokens of which every ``word``-th begins a word, [SEP]."""
    tokens, marks = [], []
    for row, length in enumerate(lengths):
        own = (5 + (row * 7919 + np.arange(length)) % 995).tolist()
        own[0] = SPECIAL.start
        if length > 1:
            own[-1] = SPECIAL.separator
        tokens.append(own)
        marks.append([WORD * (place % word == 1) for place in range(length)])
    return from_lists(tokens, marks=marks)


# -- the rule in plain words -----------------------------------------------------------------------


def segments(own: list[int], first_length: int) -> list[range]:
    """Runs of plain tokens; the second segment begins one of its own."""
    cuts = [place for place, token in enumerate(own) if token in RESERVED]
    runs, begin = [], 0
    for cut in [*cuts, len(own)]:
        for low, high in ((begin, min(cut, first_length)), (max(begin, first_length), cut)):
            if low < high:
                runs.append(range(low, high))
        begin = cut + 1
    return runs


def reference(config: SpansConfig, given: Sequences, number: int, seed: int, epoch: int) -> dict:
    """SpanBERT's loop over one sequence: sets of places, intervals that are merged."""
    begin, end = given.offsets[number : number + 2]
    own, marks = given.tokens[begin:end].tolist(), given.marks[begin:end].tolist()
    key = sequence_keys(seed, "spans", epoch, given.ids[number : number + 1])
    runs = segments(own, int(given.first_lengths[number]))
    run_of = {place: run for run in runs for place in run}
    plain = sorted(run_of)
    words = []
    for run in runs:
        starts = [p for p in run if p == run.start or marks[p] & WORD]
        stops = [*starts[1:], run.stop]
        words += [range(a, b) for a, b in zip(starts, stops, strict=True)]
    wanted = math.ceil(len(plain) * config.share)
    shares = [(1 - config.p) ** n for n in range(config.max_words)]
    hidden: set[int] = set()
    trial = 0
    while len(hidden) < wanted:
        draw, length, total = float(uniform(key, trial, 0)[0]), 1, 0.0
        for share in shares[:-1]:
            total += share / sum(shares)
            length += draw >= total
        anchor = plain[int(integers(key, trial, 1, len(plain))[0])]
        trial += 1
        if anchor in hidden:
            continue
        nth = next(n for n, word in enumerate(words) if anchor in word)
        for word in words[nth : nth + length]:
            if run_of[word.start] == run_of[anchor]:
                for place in word:
                    if len(hidden) < wanted:
                        hidden.add(place)
    spans: list[list[int]] = []
    for place in sorted(hidden):
        if spans and place - 1 == spans[-1][-1] and run_of[place] == run_of[place - 1]:
            spans[-1].append(place)
        else:
            spans.append([place])
    shown, asked = list(own), []
    for span in spans:
        before, behind, run = span[0] - 1, span[-1] + 1, run_of[span[0]]
        fate = float(uniform(key, span[0], 2)[0])
        for index, place in enumerate(span):
            if fate < config.mask_probability:
                shown[place] = SPECIAL.mask
            elif fate < config.mask_probability + config.random_probability:
                drawn = int(integers(key, place, 3, int(FREQUENCIES.sum()))[0])
                shown[place] = int((np.cumsum(FREQUENCIES) <= drawn).sum())
            if before in run and behind in run and index < config.max_span_index:
                asked.append((before, behind, index, own[place]))
    return {
        "tokens": shown,
        "masked_lm places": sorted(hidden),
        "masked_lm labels": [own[place] for place in sorted(hidden)],
        "span_boundary places": [one[0] for one in asked],
        "span_boundary labels": [one[3] for one in asked],
        "span_boundary right_place": [one[1] for one in asked],
        "span_boundary index": [one[2] for one in asked],
    }


@st.composite
def some_sequences(draw: st.DrawFn) -> Sequences:
    """Any tokens, special ones among them, any marks, one segment or two."""
    token = st.integers(5, SPECIAL.size - 1) | st.sampled_from(sorted(RESERVED))
    tokens = draw(st.lists(st.lists(token, min_size=1, max_size=40), min_size=1, max_size=5))
    marks = [[WORD * draw(st.booleans()) for _ in own] for own in tokens]
    first = [draw(st.integers(1, len(own))) for own in tokens]
    return from_lists(tokens, marks=marks, first_lengths=first)


CONFIGS = [
    SPANS,
    SpansConfig(kind="spans", share=0.5, max_words=3, max_span_index=2, random_probability=0.2),
    SpansConfig(kind="spans", share=0.9, p=0.7, mask_probability=0.0, random_probability=1.0),
]


@settings(max_examples=60, deadline=None)
@given(some_sequences(), st.sampled_from(CONFIGS), st.integers(0, 3), st.integers(0, 2**63))
def test_compiled_loop_equals_the_rule(given, config, epoch: int, seed: int) -> None:
    corrupted = corrupt(config, given, seed=seed, epoch=epoch)
    found = apart(corrupted)
    numbers = range(len(given.ids))
    assert found == [reference(config, given, number, seed, epoch) for number in numbers]
    assert (restored(corrupted) == given.tokens).all()
    check_bounds(config, CONTEXT, given, corrupted)
    plain = ~np.isin(given.tokens, sorted(RESERVED))
    assert len(corrupted.targets["masked_lm"].places) >= plain.any(), "something is hidden"


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_a_sequence_is_corrupted_alike_in_any_company(lengths: list[int], random) -> None:
    some = random.sample(range(len(lengths)), random.randint(1, len(lengths)))
    check_purity(SPANS, CONTEXT, sequences(lengths), some)


# -- worked examples -------------------------------------------------------------------------------

TEXT = "the old gard ##en ##er ##s wal ##ked to the door of the house by the sea"


def worked(own_id: int) -> tuple[list[str], dict[str, list[float]], list[str]]:
    words = ["[CLS]", *TEXT.split(), "[SEP]"]
    plain = sorted({*words} - {"[CLS]", "[SEP]"})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *plain]
    special = SpecialIds(len(vocabulary), pad=0, start=2, separator=3, mask=4)
    counts = np.array([0] * 5 + [1] * len(plain))
    tables = {"frequencies": counts, "cumulative_frequencies": np.cumsum(counts)}
    given = from_lists(
        [[vocabulary.index(word) for word in words]],
        ids=[own_id],
        marks=[[WORD * (not word.startswith(("##", "["))) for word in words]],
    )
    (found,) = apart(SPANS.corrupt(Context(special, tables), given, seed=1, epoch=0))
    return vocabulary, found, [vocabulary[int(token)] for token in found["tokens"]]


def test_worked_example() -> None:
    vocabulary, found, shown = worked(2)
    hidden = "[CLS] the old [MASK] [MASK] [MASK] ##s"
    assert shown == [*hidden.split(), *TEXT.split()[6:], "[SEP]"]
    assert found["masked_lm places"] == [3, 4, 5]
    labels = ["gard", "##en", "##er"]
    assert [vocabulary[int(label)] for label in found["masked_lm labels"]] == labels
    assert found["span_boundary places"] == [2, 2, 2]
    assert found["span_boundary right_place"] == [6, 6, 6]
    assert found["span_boundary index"] == [0, 1, 2]
    assert [vocabulary[int(label)] for label in found["span_boundary labels"]] == labels


def test_what_touches_the_edge_of_its_segment_is_not_asked_of_a_boundary() -> None:
    config = SpansConfig(kind="spans", share=0.99, max_words=1)
    for own in ([2, 9, 3], [9], [9, 8], [2, 9, 3, 8, 3]):
        given = from_lists([own], marks=[[WORD] * len(own)])
        (found,) = apart(corrupt(config, given))
        plain = [place for place, token in enumerate(own) if token not in RESERVED]
        assert found["masked_lm places"] == plain
        assert found["span_boundary places"] == []
    # Two segments without a special token between them touch, but are no span.
    given = from_lists([[9, 8, 7, 6]], marks=[[WORD] * 4], first_lengths=[2])
    (found,) = apart(corrupt(config, given))
    assert found["masked_lm places"] == [0, 1, 2, 3]
    assert found["span_boundary places"] == []


def test_long_spans_are_cut_off_for_the_boundary_alone() -> None:
    config = SpansConfig(kind="spans", share=0.5, max_words=1, max_span_index=4)
    given = from_lists(
        [[5 + n for n in range(42)]] * 50,
        marks=[[WORD * (place in (1, 41)) for place in range(42)]] * 50,
    )
    found = [one for one in apart(corrupt(config, given)) if one["span_boundary index"]]
    assert found, "a word of 40 tokens is cut after 21 of them"
    for one in found:
        assert one["span_boundary index"] == [0, 1, 2, 3]
        assert one["span_boundary places"] == [0] * 4
        assert one["span_boundary right_place"] == [22 - (0 in one["masked_lm places"])] * 4
        assert len(one["masked_lm places"]) == 21


@pytest.mark.parametrize(
    ("length", "count"), [(1, 0), (2, 0), (3, 1), (8, 1), (9, 2), (128, 19), (512, 77)]
)
def test_so_many_tokens_of_a_sequence_are_hidden(length: int, count: int) -> None:
    given = sequences([length] * 30)
    corrupted = corrupt(SPANS, given)
    assert [len(one["masked_lm places"]) for one in apart(corrupted)] == [count] * 30
    assert (restored(corrupted) == given.tokens).all()
    check_bounds(SPANS, CONTEXT, given, corrupted)


def test_bounds_are_those_of_sequences_without_special_tokens() -> None:
    limits = SPANS.bounds(CONTEXT, np.array([1, 2, 3, 7, 20, 128, 510]))
    assert limits.targets["masked_lm"].tolist() == [1, 1, 1, 2, 3, 20, 77]
    assert limits.targets["span_boundary"].tolist() == [0, 0, 1, 2, 3, 20, 77]
    check_nothing(SPANS, CONTEXT)


def test_lengths_are_geometric() -> None:
    shares = SPANS.length_shares()
    assert shares.sum() == pytest.approx(1.0, abs=1e-15)
    assert shares[1:] / shares[:-1] == pytest.approx([0.8] * 9)
    assert (shares * np.arange(1, 11)).sum() == pytest.approx(3.797, abs=5e-4)


def test_spans_have_the_drawn_lengths_and_those_their_mean() -> None:
    config = SpansConfig(kind="spans", share=0.001)
    given = from_lists([[9] * 40_000] * 60, marks=[[WORD] * 40_000] * 60)
    shares = config.length_shares()
    keys = given.keys(1, "spans", 0)
    drawn = 1 + np.searchsorted(
        np.cumsum(shares), uniform(keys[:, None], np.arange(2000), 0), side="right"
    )
    deviation = math.sqrt((shares * (np.arange(1, 11) - 3.797) ** 2).sum())
    assert abs(drawn.mean() - 3.797) < 4 * deviation / math.sqrt(drawn.size)
    as_drawn = 0
    for own, lengths in zip(apart(corrupt(config, given)), drawn, strict=True):
        places = np.array(own["masked_lm places"])
        assert len(places) == 40
        runs = np.diff([0, *(np.flatnonzero(np.diff(places) > 1) + 1), 40])
        number = int(np.searchsorted(np.cumsum(lengths), 40))
        last = 40 - lengths[:number].sum()  # cut short
        as_drawn += sorted(runs) == sorted([*lengths[:number], last])
    assert as_drawn >= 55, "ten spans among 40,000 words hardly ever touch"


def test_random_tokens_are_drawn_as_often_as_they_occur() -> None:
    config = SpansConfig(kind="spans", mask_probability=0.0, random_probability=1.0)
    corrupted = corrupt(config, sequences([512] * 300))
    drawn = np.bincount(
        corrupted.inputs.tokens[corrupted.targets["masked_lm"].places], minlength=SPECIAL.size
    )
    assert (drawn[FREQUENCIES == 0] == 0).all()
    expected = drawn.sum() * FREQUENCIES / FREQUENCIES.sum()
    real = expected > 0
    statistic = ((drawn[real] - expected[real]) ** 2 / expected[real]).sum()
    freedom = real.sum() - 1
    assert abs(statistic - freedom) < 4 * math.sqrt(2 * freedom)


@pytest.mark.parametrize(("length", "count"), [(128, 19), (512, 77)])
def test_a_million_real_tokens_have_the_published_shares(prose, length: int, count: int) -> None:
    context, given = prose(length)
    plain = ~np.isin(given.tokens, [context.special.start, context.special.separator])
    frequencies = np.bincount(given.tokens[plain], minlength=context.special.size)
    tables = {"frequencies": frequencies, "cumulative_frequencies": np.cumsum(frequencies)}
    context = replace(context, tables=tables)
    corrupted = SPANS.corrupt(context, given, seed=1, epoch=0)
    places, labels = corrupted.targets["masked_lm"].places, corrupted.targets["masked_lm"].labels
    assert (np.bincount(places // length) == count).all()
    assert plain[places].all()
    # One fate a span: the spans are the sample, weighted by their lengths.
    starts = np.flatnonzero(np.diff(places, prepend=-2) != 1)
    sizes = np.diff([*starts, len(places)])
    now = corrupted.inputs.tokens[places]
    masked, kept = now == context.special.mask, now == labels
    whole = np.add.reduceat(masked, starts)
    assert set(np.unique(whole[whole > 0] == sizes[whole > 0])) == {True}
    error = math.sqrt((sizes.astype(float) ** 2).sum()) / sizes.sum()
    assert abs(masked.mean() - 0.8) < 4 * error * math.sqrt(0.16)
    same = (frequencies / frequencies.sum()) @ (frequencies / frequencies.sum())
    share = 0.1 + 0.1 * same
    assert abs(kept.mean() - share) < 4 * error * math.sqrt(share * (1 - share)) + 0.1 * same

    # Spans begin with words, but for the first of a sequence, which may go on with one.
    word = (given.marks[places[starts]] & WORD) > 0
    assert (word | (places[starts] % length == 1)).all()
    boundary = corrupted.targets["span_boundary"]
    right, index = boundary.extra["right_place"], boundary.extra["index"]
    assert (boundary.places < right).all()
    assert (given.tokens[boundary.places + 1 + index] == boundary.labels).all()
    assert plain[boundary.places].all()
    assert plain[right].all()
    assert not np.isin(np.concatenate([boundary.places, right]), places).any(), "boundaries stay"
    assert index.max() == 14
    inner = (places[starts] % length > 1) & ((places[starts] + sizes) % length < length - 1)
    assert len(index) == np.minimum(sizes[inner], 15).sum()


@pytest.mark.parametrize("pack", [False, True])
def test_static_copy_equals_dynamic_epoch(tmp_path: Path, pack: bool) -> None:
    write_documents(tmp_path / "raw" / "a.txt", make_text(60))
    common = {
        "length": 32,
        "layout": {"kind": "blocks"},
        "pack": pack,
        "corruption": {"kind": "spans"},
        "copies": 2,
    }
    preparation = prepare_config(
        tmp_path, examples={mode: common | {"mode": mode} for mode in ("static", "dynamic")}
    )
    run_stages(preparation)
    corruption = preparation.examples["static"].corruption
    static, dynamic = (
        RowSet(preparation.examples_directory(mode), "train", seed=preparation.seed)
        for mode in ("static", "dynamic")
    )
    assert static.num_rows == dynamic.num_rows
    for epoch in range(2):
        rows = np.random.default_rng(epoch).permutation(static.num_rows[epoch])
        a = static.arrays(corruption, rows, epoch=epoch).named()
        b = dynamic.arrays(corruption, rows, epoch=epoch).named()
        assert a.keys() == b.keys()
        assert all((a[name] == b[name]).all() for name in a)
        assert (a["targets/span_boundary/labels"] >= 0).sum() > 0
