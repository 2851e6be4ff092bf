from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from corpora import prepare_config
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
    chosen,
    framed,
    from_lists,
    special_set,
)

from configs.schema import ConfigError
from preprocessing.corruption import (
    Context,
    DropTokensConfig,
    NgramsConfig,
    ReplacedConfig,
    SpecialIds,
    UnitsConfig,
    WholeWordConfig,
    WindowsConfig,
)
from preprocessing.corruption.unilm import UnilmConfig
from preprocessing.draws import bits, sequence_keys
from preprocessing.kernels.dropping import move_marks
from preprocessing.marks import ENTITY, IN_ENTITY, IN_PHRASE, PHRASE, SENTENCE, WORD

DROP = DropTokensConfig(kind="drop_tokens")
UNILM = DropTokensConfig(
    kind="drop_tokens", share=0.3, then=UnilmConfig(kind="unilm", mode="sequence")
)


def test_worked_example() -> None:
    words = ["[CLS]", "he", "went", "to", "the", "old", "store", "on", "foot", "[SEP]"]
    plain = sorted({*words} - {"[CLS]", "[SEP]"})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *plain]
    given = from_lists([[vocabulary.index(word) for word in words]], ids=[92])
    special = SpecialIds(len(vocabulary), pad=0, start=2, separator=3, mask=4)
    config = DropTokensConfig(kind="drop_tokens", share=0.3)
    (found,) = apart(config.corrupt(Context(special), given, seed=1, epoch=0))
    shown = "[CLS] he went the [MASK] on foot [SEP]"
    assert [vocabulary[token] for token in found["tokens"]] == shown.split()
    assert found["positions"] == [0, 1, 2, 4, 5, 7, 8, 9]
    assert found["masked_lm places"] == [4]
    assert [vocabulary[token] for token in found["masked_lm labels"]] == ["old"]


def test_lengths_from_lengths_alone() -> None:
    lengths = np.array([1, 2, 3, 4, 6, 7, 10, 128, 512])
    assert DROP.num_dropped(lengths).tolist() == [0, 0, 0, 0, 0, 1, 1, 19, 76]
    limits = DROP.bounds(CONTEXT, lengths)
    assert limits.inputs.tolist() == [1, 2, 3, 4, 6, 6, 9, 109, 436]
    assert limits.targets["masked_lm"].tolist() == [1, 1, 1, 1, 1, 1, 1, 16, 65]
    half = DropTokensConfig(kind="drop_tokens", share=0.5)
    every = np.arange(1, 2000)
    assert ((every - 1) / 2 - half.num_dropped(every) > 0)[1:].all(), "a plain token stays"


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(0, 3), st.randoms())
def test_a_plain_loop_gives_the_same(lengths: list[int], epoch: int, random) -> None:
    given = framed(lengths)
    for config in (DROP, UNILM):
        corrupted = config.corrupt(CONTEXT, given, seed=1, epoch=epoch)
        rest, first_lengths, positions = [], [], []
        for number in range(len(lengths)):
            begin, end = given.offsets[number : number + 2]
            tokens = given.tokens[begin:end].tolist()
            key = sequence_keys(1, "drop tokens", epoch, np.array([number]))
            plain = [i for i, token in enumerate(tokens) if token not in special_set(SPECIAL)]
            plain.sort(key=lambda place, key=key: int(bits(key, place, 0)[0]))
            gone = plain[: round(config.share * max(0, len(tokens) - 3))]
            kept = [place for place in range(len(tokens)) if place not in gone]
            positions.append(kept)
            rest.append([tokens[place] for place in kept])
            first_lengths.append(sum(place < given.first_lengths[number] for place in kept))
        shorter = from_lists(rest, first_lengths=first_lengths)
        inner = apart(config.then.corrupt(CONTEXT, shorter, seed=1, epoch=epoch))
        for one, then, own in zip(apart(corrupted), inner, positions, strict=True):
            assert one == {**then, "positions": own}
        assert corrupted.inputs.first_lengths.tolist() == first_lengths
        check_bounds(config, CONTEXT, given, corrupted)
        some = random.sample(range(len(lengths)), random.randint(1, len(lengths)))
        check_purity(config, CONTEXT, given, some)
        assert (corrupted.inputs.lengths == config.bounds(CONTEXT, given.lengths).inputs).all()
        check_nothing(config, CONTEXT)


@pytest.mark.parametrize(("length", "dropped"), [(128, 19), (512, 76)])
def test_a_million_real_tokens_lose_an_exact_share(prose, length: int, dropped: int) -> None:
    context, given = prose(length)
    corrupted = DROP.corrupt(context, given, seed=1, epoch=0)
    kept = length - dropped
    assert (corrupted.inputs.lengths == kept).all()
    positions = corrupted.channels["positions"].reshape(-1, kept)
    assert (np.diff(positions) > 0).all()
    assert (positions[:, 0] == 0).all(), "special tokens stay"
    assert (positions[:, -1] == length - 1).all()
    targets = corrupted.targets["masked_lm"]
    assert (np.bincount(targets.places // kept) == round(0.15 * kept)).all()
    restored = corrupted.inputs.tokens.copy()
    restored[targets.places] = targets.labels
    original = np.take_along_axis(given.tokens.reshape(-1, length), positions, axis=1)
    assert (restored.reshape(-1, kept) == original).all()
    hits = np.bincount(positions.reshape(-1), minlength=length)[1:-1]
    rows, share = len(positions), dropped / (length - 2)
    expected = rows * (1 - share)
    statistic = ((hits - expected) ** 2).sum() / (rows * share * (1 - share))
    assert abs(statistic - hits.size) < 4 * np.sqrt(2 * hits.size), "all places alike"


def test_lost_beginnings_pass_to_what_goes_on() -> None:
    tokens = np.array([2, 10, 11, 12, 13, 3, 14, 15, 3, 2, 16, 17, 3])
    marks = np.zeros(13, dtype=np.uint8)
    marks[1] = WORD | SENTENCE | ENTITY
    marks[2] = IN_ENTITY
    marks[3] = WORD | IN_ENTITY
    marks[4] = WORD | PHRASE
    marks[6] = WORD | SENTENCE
    marks[7] = IN_PHRASE
    kept = np.array([0, 2, 3, 5, 8, 9, 10, 11, 12])
    moved = move_marks(marks, tokens, np.array([0, 9, 13]), np.array([2, 3, 0, -1]), kept)
    assert moved.tolist() == [
        0,
        WORD | SENTENCE | ENTITY,  # 11 takes over from 10
        WORD | IN_ENTITY,  # 12 had all that concerns it
        0,  # the separator takes nothing of 13
        0,
        *[0] * 4,  # nothing of 14 and 15 reaches another sequence
    ]


def test_marks_follow_their_tokens(prose) -> None:
    """Each word of which something is left begins with its first token that is."""
    context, given = prose(128)
    kept, shorter = DROP._drop(context, given, 1, 0)
    begins = (given.marks & WORD) > 0
    borders = begins | (np.arange(len(begins)) % 128 == 0)
    units = np.cumsum(borders) - 1  # words, and the part of one that a sequence may begin with
    plain = ~np.isin(given.tokens, list(special_set(context.special)))
    left = np.unique(units[kept][plain[kept]])
    begun = (shorter.marks & WORD) > 0
    assert (units[kept][begun] == left[begins[borders][left]]).all()
    assert begun.sum() > (begins[kept]).sum(), "some words lost their beginning"


@pytest.mark.parametrize(
    "then",
    [
        NgramsConfig(kind="ngrams"),
        ReplacedConfig(kind="replaced"),
        UnitsConfig(kind="units", level="words"),
        WholeWordConfig(kind="whole_word"),
        WindowsConfig(kind="windows"),
    ],
)
def test_any_scheme_that_keeps_places_comes_behind(prose, then) -> None:
    context, given = prose(128)
    part = chosen(given, range(300))
    config = DropTokensConfig(kind="drop_tokens", then=then)
    corrupted = config.corrupt(context, part, seed=1, epoch=0)
    positions = corrupted.channels["positions"] + np.repeat(part.offsets[:-1], 109)
    targets = corrupted.targets["masked_lm"]
    assert (part.tokens[positions[targets.places]] == targets.labels).all()
    assert len(targets.places) > 300
    check_bounds(config, context, part, corrupted)
    check_purity(config, context, chosen(part, range(20)), [3, 17, 4])
    check_nothing(config, context)


def test_ends_of_documents_stay() -> None:
    """A vocabulary's token for them (XLNet's <eod>) is as special as the separator."""
    context = Context(replace(SPECIAL, end=9))
    given = from_lists([[2, 9, 7, 8, 9, 7, 8, 7, 9, 3]] * 200)
    config = DropTokensConfig(kind="drop_tokens", share=0.5)
    tokens = config.corrupt(context, given, seed=1, epoch=0).inputs.tokens.reshape(200, 6)
    assert ((tokens == 9).sum(axis=1) == 3).all()


def test_lost_beginnings_do_not_pass_an_end_of_a_document() -> None:
    marks = np.array([WORD, 0, WORD, 0], dtype=np.uint8)
    tokens, reserved = np.array([10, 9, 11, 12]), np.array([2, 3, 0, 9])
    moved = move_marks(marks, tokens, np.array([0, 4]), reserved, np.array([1, 3]))
    assert moved.tolist() == [0, WORD]


def test_special_tokens_in_a_row_are_refused() -> None:
    with pytest.raises(ValueError, match="sequence 7 has less than 1 plain tokens to drop"):
        DROP.corrupt(CONTEXT, from_lists([[2] * 8], ids=[7]), seed=1, epoch=0)


def test_schemes_that_move_tokens_are_refused(tmp_path: Path) -> None:
    corruption = {"kind": "drop_tokens", "then": {"kind": "causal"}}
    examples = {"tiny": {"length": 32, "layout": {"kind": "blocks"}, "corruption": corruption}}
    with pytest.raises(ConfigError, match=r"examples\.tiny\.corruption\.then.*masked"):
        prepare_config(tmp_path, examples=examples)
    examples["tiny"]["corruption"] = {"kind": "drop_tokens", "then": {"kind": "masked"}}
    assert prepare_config(tmp_path, examples=examples).examples["tiny"].corruption == DROP


def test_static_copy_equals_dynamic_epoch(tmp_path: Path) -> None:
    corruption = {"kind": "drop_tokens", "share": 0.2, "then": {"kind": "masked"}}
    arrays = check_static_is_dynamic(tmp_path, corruption)
    real = arrays["sequence_ids"] > 0
    assert arrays["positions"][real].max() > 31, "sequences are longer than what is left of them"
    assert (arrays["positions"][~real] == 0).all()
