import json
import math
from pathlib import Path

import numpy as np
import pytest
from corpora import make_text, prepare_config, run_stages, write_documents
from hypothesis import given, settings
from hypothesis import strategies as st
from schemes import (
    CONTEXT,
    SPECIAL,
    apart,
    check_bounds,
    check_nothing,
    check_purity,
    from_lists,
    restored,
)

from configs.schema import digest
from preprocessing.corruption import Context, Sequences, SpecialIds, UnitsConfig
from preprocessing.corruption.units import LEVELS
from preprocessing.draws import integers, sequence_keys, uniform
from preprocessing.marks import ENTITY, IN_ENTITY, IN_PHRASE, PHRASE, WORD
from preprocessing.rows import RowSet

RESERVED = {SPECIAL.pad, SPECIAL.start, SPECIAL.separator}


def units(level: object, **changes: float) -> UnitsConfig:
    return UnitsConfig(kind="units", level=level, **changes)


# -- the rule in plain words -----------------------------------------------------------------------


def segment_labels(level: str, own: list[int], marks: list[int], first_length: int) -> list[int]:
    """1 where a unit goes on, 0 where one begins, -1 at special tokens."""
    start, inside = {"phrases": (PHRASE, IN_PHRASE), "entities": (ENTITY, IN_ENTITY)}.get(
        level, (0, 0)
    )
    labels: list[int] = []
    for place, (token, mark) in enumerate(zip(own, marks, strict=True)):
        before = marks[place - 1] & (start | inside) if place else 0
        if token in RESERVED:
            labels.append(-1)
        elif place in (0, first_length) or labels[-1] == -1 or level == "tokens" or mark & start:
            labels.append(0)
        elif mark & inside:
            labels.append(1 if before else 0)
        else:
            labels.append(0 if mark & WORD or before else 1)
    return labels


def reference(config: UnitsConfig, given: Sequences, number: int, seed: int, epoch: int) -> dict:
    """As the mask function of ERNIE's batching: one array of draws for units and their tokens."""
    begin, end = given.offsets[number : number + 2]
    own = given.tokens[begin:end].tolist()
    marks = given.marks[begin:end].tolist() or [0] * len(own)
    key = sequence_keys(seed, "units", epoch, given.ids[number : number + 1])
    share = config.share
    level = config.level
    if not isinstance(level, str):
        draw = float(uniform(key, 0, 2)[0]) * sum(level[one] for one in LEVELS if one in level)
        for one in LEVELS:
            if one in level:
                name = one
                draw -= level[one]
                if draw < 0:
                    break
        level = name
    labels = segment_labels(level, own, marks, int(given.first_lengths[number]))
    prob = [float(uniform(key, place, 0)[0]) for place in range(len(own))]
    chosen = []
    for place, label in enumerate(labels):
        if label == 0 and prob[place] <= share:
            stop = place + 1
            while stop < len(own) and labels[stop] == 1:
                stop += 1
            chosen.append(range(place, stop))
    room = math.ceil(len(own) * share + 6 * math.sqrt(len(own) * share * (1 - share)))
    chosen.sort(key=lambda unit: prob[unit.start])
    while sum(map(len, chosen)) > room:
        chosen.pop()
    shown, asked = list(own), []
    for unit in chosen:
        for place in unit:
            base = share if place == unit.start else 1.0
            keep = 1 - config.mask_probability - config.random_probability
            if prob[place] > base * (keep + config.random_probability):
                shown[place] = SPECIAL.mask
            elif prob[place] > base * keep:
                shown[place] = 1 + int(integers(key, place, 1, SPECIAL.size - 1)[0])
            asked.append(place)
    return {
        "tokens": shown,
        "masked_lm places": sorted(asked),
        "masked_lm labels": [own[place] for place in sorted(asked)],
    }


MARKS = [0, WORD, PHRASE | WORD, IN_PHRASE, IN_PHRASE | WORD, ENTITY, IN_ENTITY, ENTITY | PHRASE]


@st.composite
def some_sequences(draw: st.DrawFn) -> Sequences:
    """Any tokens, special ones among them, any marks, one segment or two."""
    token = st.integers(5, SPECIAL.size - 1) | st.sampled_from(sorted(RESERVED))
    tokens = draw(st.lists(st.lists(token, min_size=1, max_size=40), min_size=1, max_size=5))
    marks = [[draw(st.sampled_from(MARKS)) for _ in own] for own in tokens]
    first = [draw(st.integers(1, len(own))) for own in tokens]
    return from_lists(tokens, marks=marks, first_lengths=first)


CONFIGS = [
    *(units(level) for level in LEVELS),
    units({"tokens": 2.0, "entities": 1.0}),
    units({"entities": 0.5, "words": 0.25, "phrases": 0.25}, share=0.4, random_probability=0.2),
    units("phrases", share=0.05, mask_probability=0.0, random_probability=1.0),
]


@settings(max_examples=80, deadline=None)
@given(some_sequences(), st.sampled_from(CONFIGS), st.integers(0, 3), st.integers(0, 2**63))
def test_compiled_loop_equals_the_rule(given, config, epoch: int, seed: int) -> None:
    corrupted = config.corrupt(CONTEXT, given, seed=seed, epoch=epoch)
    numbers = range(len(given.ids))
    expected = [reference(config, given, number, seed, epoch) for number in numbers]
    assert apart(corrupted) == expected
    assert (restored(corrupted) == given.tokens).all()
    check_bounds(config, CONTEXT, given, corrupted)


def words_and_phrases(lengths: list[int]) -> Sequences:
    """[CLS], tokens, [SEP]; every third begins a word, six of ten are a phrase and an entity."""
    tokens, marks = [], []
    for row, length in enumerate(lengths):
        own = (5 + (row * 7919 + np.arange(length)) % 995).tolist()
        own[0] = SPECIAL.start
        own[-1] = SPECIAL.separator
        tokens.append(own)
        spans = [(PHRASE | ENTITY, IN_PHRASE | IN_ENTITY)[place % 10 > 0] for place in range(6)]
        marks.append(
            [
                (WORD * (place % 3 == 1)) | (spans[place % 10] if place % 10 < 6 else 0)
                for place in range(length)
            ]
        )
    return from_lists(tokens, marks=marks)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: json.dumps(config.level))
@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_a_sequence_is_corrupted_alike_in_any_company(config, lengths, random) -> None:
    some = random.sample(range(len(lengths)), random.randint(1, len(lengths)))
    check_purity(config, CONTEXT, words_and_phrases(lengths), some)
    check_nothing(config, CONTEXT)


# -- worked examples -------------------------------------------------------------------------------


def test_worked_example() -> None:
    words = ["[CLS]", "he", "lives", "in", "New", "York", "now", "[SEP]"]
    vocabulary = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "street", *words[1:-1]]
    given = from_lists(
        [[vocabulary.index(word) for word in words]],
        ids=[6688],
        marks=[[0, WORD, WORD, WORD, WORD | ENTITY, WORD | IN_ENTITY, WORD, 0]],
    )
    context = Context(SpecialIds(len(vocabulary), pad=0, start=1, separator=2, mask=3))
    (found,) = apart(units("entities").corrupt(context, given, seed=1, epoch=0))
    shown = ["[CLS]", "he", "lives", "in", "street", "[MASK]", "now", "[SEP]"]
    assert [vocabulary[int(token)] for token in found["tokens"]] == shown
    assert found["masked_lm places"] == [4, 5]
    assert [vocabulary[int(label)] for label in found["masked_lm labels"]] == ["New", "York"]
    draws = uniform(given.keys(1, "units", 0), np.array([4, 5]), 0)
    assert np.round(draws, 2).tolist() == [0.02, 0.92]


def test_units_of_each_level() -> None:
    """Where the whole of one unit is chosen by the draw of its first token alone."""
    #         [CLS]  un   ##do  New   York  ##er  is   here [SEP]
    marks = [0, WORD, 0, WORD | PHRASE | ENTITY, WORD | IN_PHRASE | IN_ENTITY, IN_PHRASE, WORD]
    given = from_lists(
        [[2, 11, 12, 13, 14, 15, 16, 17, 3]] * 3000, marks=[[*marks, WORD, 0]] * 3000
    )
    expected = {
        "tokens": [[1], [2], [3], [4], [5], [6], [7]],
        "words": [[1, 2], [3], [4, 5], [6], [7]],
        "phrases": [[1, 2], [3, 4, 5], [6], [7]],
        "entities": [[1, 2], [3, 4], [5], [6], [7]],
    }
    for level, own in expected.items():
        corrupted = units(level, share=0.1).corrupt(CONTEXT, given, seed=3, epoch=0)
        together = {tuple(one["masked_lm places"]) for one in apart(corrupted)}
        for unit in own:
            assert tuple(unit) in together, "alone now and then"
        for places in together:
            for unit in own:
                assert set(unit) <= set(places) or not set(unit) & set(places)


def test_level_of_a_sequence_is_drawn_by_weights() -> None:
    config = units({"entities": 3.0, "tokens": 1.0})
    keys = sequence_keys(1, "units", 0, np.arange(40_000))
    levels = config.levels(keys)
    assert set(levels.tolist()) == {LEVELS.index("tokens"), LEVELS.index("entities")}
    share = (levels == LEVELS.index("entities")).mean()
    assert abs(share - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 40_000)
    other = units({"tokens": 1.0, "entities": 3.0})
    assert (other.levels(keys) == levels).all(), "in whatever order they are given"
    assert digest(other) == digest(config)
    assert config.marks() == WORD | ENTITY | IN_ENTITY
    assert units("tokens").marks() == 0


@pytest.mark.parametrize("weights", [{}, {"tokens": 0.0}, {"characters": 1.0}, "characters"])
def test_weights_that_mean_nothing_are_refused(weights: object) -> None:
    with pytest.raises(ValueError, match="level"):
        units(weights)


def test_room_is_six_deviations_more_than_the_mean() -> None:
    limits = units("words").bounds(CONTEXT, np.array([0, 1, 2, 3, 8, 128, 512]))
    assert limits.targets["masked_lm"].tolist() == [0, 1, 2, 3, 8, 44, 126]
    assert limits.inputs.tolist() == [0, 1, 2, 3, 8, 128, 512]


def test_units_with_the_largest_draws_are_left_out_where_there_is_no_room() -> None:
    """Entities of 30 tokens: two of them do not fit into the 44 places of 128 tokens."""
    entity = [ENTITY, *[IN_ENTITY] * 29]
    given = from_lists([list(range(5, 125))] * 4000, marks=[entity * 4] * 4000)
    config = units("entities")
    most = int(config.num_targets(np.array([120]))[0])
    assert 30 <= most < 60
    keys = given.keys(5, "units", 0)
    draws = uniform(keys[:, None], np.arange(0, 120, 30)[None], 0)
    counts = [
        one["masked_lm places"] for one in apart(config.corrupt(CONTEXT, given, seed=5, epoch=0))
    ]
    crowded = 0
    for own, places in zip(draws, counts, strict=True):
        chosen = np.flatnonzero(own <= 0.15)
        crowded += len(chosen) > 1
        kept = [] if not len(chosen) else [int(np.argmin(own))]
        assert places == [place for unit in kept for place in range(30 * unit, 30 * unit + 30)]
    assert crowded > 100


@pytest.mark.parametrize("level", ["tokens", "words"])
@pytest.mark.parametrize("length", [128, 512])
def test_a_million_real_tokens_have_the_published_shares(prose, length: int, level: str) -> None:
    context, given = prose(length)
    special = context.special
    config = units(level)
    corrupted = config.corrupt(context, given, seed=1, epoch=0)
    targets = corrupted.targets["masked_lm"]
    assert not np.isin(targets.labels, [special.start, special.separator, special.pad]).any()
    check_bounds(config, context, given, corrupted)
    plain = ~np.isin(given.tokens, [special.start, special.separator])
    begins = plain if level == "tokens" else (plain & (given.marks & WORD > 0))
    begins = begins | (np.arange(len(plain)) % length == 1)
    starts = np.flatnonzero(begins)
    unit = np.cumsum(begins) - 1
    sizes = np.bincount(unit[plain])
    hit = np.bincount(unit[targets.places], minlength=len(starts))
    assert set(np.unique(hit[hit > 0] == sizes[hit > 0])) == {True}, "whole units"
    share = (hit > 0).mean()
    assert abs(share - 0.15) < 4 * math.sqrt(0.15 * 0.85 / len(starts))
    first = begins[targets.places]
    now = corrupted.inputs.tokens[targets.places]
    for kind in (first, ~first):
        count = kind.sum()
        if not count:
            assert level == "tokens"
            continue
        for hits, expected in (
            ((now == special.mask)[kind].sum(), 0.8 + 0.1 / special.size),
            ((now == targets.labels)[kind].sum(), 0.1 + 0.1 / special.size),
        ):
            assert abs(hits / count - expected) < 4 * math.sqrt(expected * (1 - expected) / count)
    replaced = now[(now != special.mask) & (now != targets.labels)]
    assert replaced.min() >= 1, "id 0 is not drawn"
    largest = np.bincount(targets.places // length).max()
    assert largest <= config.num_targets(np.array([length]))[0]


@pytest.mark.parametrize("pack", [False, True])
def test_static_copy_equals_dynamic_epoch(tmp_path: Path, pack: bool) -> None:
    write_documents(tmp_path / "raw" / "a.txt", make_text(60))
    common = {
        "length": 32,
        "layout": {"kind": "pairs"},
        "pack": pack,
        "corruption": {"kind": "units", "level": {"words": 0.5, "tokens": 0.5}},
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
        assert (a["targets/masked_lm/labels"] >= 0).sum() > 0
