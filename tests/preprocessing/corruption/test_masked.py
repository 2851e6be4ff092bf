import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from corpora import make_text, prepare_config, run_stages, write_documents
from hypothesis import given
from hypothesis import strategies as st
from schemes import CONTEXT, SPECIAL, apart, check_bounds, check_nothing, check_purity, from_lists
from schemes import restored as rebuilt_of

from configs.schema import to_plain
from preprocessing.corruption import (
    Context,
    Corrupted,
    DropTokensConfig,
    MaskedConfig,
    NgramsConfig,
    ReplacedConfig,
    Scheme,
    Sequences,
    SmoothedConfig,
    SpansConfig,
    SpecialIds,
    UnilmConfig,
    UnitsConfig,
    WholeWordConfig,
    WindowsConfig,
)
from preprocessing.corruption.base import ABSENT
from preprocessing.rows import RowSet
from preprocessing.storage import InputError

MASKED = MaskedConfig(kind="masked")


def corrupt(config: MaskedConfig, given: Sequences, *, seed: int = 1, epoch: int = 0) -> Corrupted:
    return config.corrupt(CONTEXT, given, seed=seed, epoch=epoch)


def sequences(lengths: list[int]) -> Sequences:
    """[CLS], distinct-looking tokens from 5 on, [SEP]s."""
    tokens = []
    for row, length in enumerate(lengths):
        own = (5 + (row * 7919 + np.arange(length)) % 995).tolist()
        own[0], own[-1] = SPECIAL.start, SPECIAL.separator
        if length > 4:
            own[length // 2] = SPECIAL.separator
        tokens.append(own)
    return from_lists(tokens)


def places_of(corrupted: Corrupted) -> list[list[float]]:
    return [one["masked_lm places"] for one in apart(corrupted)]


@pytest.mark.parametrize(
    ("length", "count"),
    [(3, 1), (4, 1), (5, 1), (10, 2), (20, 3), (30, 4), (50, 8), (128, 19), (512, 77)],
)
def test_so_many_targets_has_a_sequence(length: int, count: int) -> None:
    given = sequences([length] * 20)
    corrupted = corrupt(MASKED, given)
    assert [len(own) for own in places_of(corrupted)] == [min(count, length - 2)] * 20
    bounds = MASKED.bounds(CONTEXT, np.array([length]))
    assert bounds.targets["masked_lm"].tolist() == [count]
    assert bounds.inputs.tolist() == [length]
    assert bounds.decoder is None
    check_bounds(MASKED, CONTEXT, given, corrupted)


def test_counts_round_half_to_even_as_the_reference() -> None:
    lengths = np.arange(3, 5000)
    for share in (0.15, 0.05, 0.25, 0.5):
        config = MaskedConfig(kind="masked", share=share)
        expected = [max(1, round(length * share)) for length in lengths.tolist()]
        assert config.num_targets(lengths).tolist() == expected
    assert MASKED.num_targets(np.array([10, 30])).tolist() == [2, 4], "1.5 and 4.5"


def test_max_targets_bounds_a_sequence() -> None:
    config = MaskedConfig(kind="masked", max_targets=20)
    counts = config.num_targets(np.array([5, 128, 133, 137, 512]))
    assert counts.tolist() == [1, 19, 20, 20, 20]
    corrupted = corrupt(config, sequences([512] * 8))
    assert len(corrupted.targets["masked_lm"].places) == 160


@pytest.mark.parametrize("length", [3, 4, 5])
def test_shortest_sequences(length: int) -> None:
    corrupted = corrupt(MASKED, sequences([length] * 400))
    places = np.array([place for (place,) in places_of(corrupted)])
    plain = [place for place in range(1, length - 1) if not (length == 5 and place == 2)]
    assert sorted(set(places.tolist())) == plain
    counts = np.array([(places == place).sum() for place in plain])
    assert (np.abs(counts - 400 / len(plain)) < 4 * math.sqrt(400)).all()


def test_sequence_without_a_plain_token_has_no_target() -> None:
    assert places_of(corrupt(MASKED, from_lists([[2, 3], [2, 9, 3], [2]]))) == [[], [1], []]
    check_nothing(MASKED, CONTEXT)


def test_worked_example() -> None:
    words = ["[CLS]", "the", "man", "went", "to", "a", "store", ".", "[SEP]", "he", "left", "[SEP]"]
    plain = sorted({*words} - {"[CLS]", "[SEP]"})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *plain]
    tokens = np.array([vocabulary.index(word) for word in words])
    special = SpecialIds(len(vocabulary), pad=0, start=2, separator=3, mask=4)
    given = from_lists([tokens.tolist()], ids=[69])
    corrupted = MASKED.corrupt(Context(special), given, seed=1, epoch=0)
    (found,) = apart(corrupted)
    assert found["masked_lm places"] == [2, 7]
    assert [vocabulary[i] for i in found["masked_lm labels"]] == ["man", "."]
    shown = "[CLS] the [MASK] went to a store store [SEP] he left [SEP]"
    assert [vocabulary[i] for i in found["tokens"]] == shown.split()


def test_fates_places_and_random_tokens() -> None:
    """80 / 10 / 10 within four standard errors; everything else uniform."""
    rows, length = 6000, 128
    given = sequences([length] * rows)
    corrupted = corrupt(MASKED, given)
    places, labels = corrupted.targets["masked_lm"].places, corrupted.targets["masked_lm"].labels
    count = len(places)
    assert count == rows * 19
    now = corrupted.inputs.tokens[places]
    # A random token equals [MASK] or the original one with 1 / size each.
    for share, hits in (
        (0.8 + 0.1 / SPECIAL.size, (now == SPECIAL.mask).sum()),
        (0.1 + 0.1 / SPECIAL.size, (now == labels).sum()),
    ):
        assert abs(hits / count - share) < 4 * math.sqrt(share * (1 - share) / count)
    others = now[(now != SPECIAL.mask) & (now != labels)]
    counts = np.delete(np.bincount(others, minlength=SPECIAL.size), SPECIAL.mask)
    expected = counts.sum() / counts.size
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = counts.size - 1
    assert abs(statistic - freedom) < 4 * math.sqrt(2 * freedom)
    assert counts[[SPECIAL.pad, SPECIAL.start, SPECIAL.separator]].min() > 0, "specials included"

    hits = np.bincount(places % length, minlength=length)
    plain = np.delete(hits, [0, length // 2, length - 1])
    assert hits[[0, length // 2, length - 1]].sum() == 0
    expected = count / plain.size
    statistic = ((plain - expected) ** 2 / expected).sum()
    assert abs(statistic - (plain.size - 1)) < 4 * math.sqrt(2 * (plain.size - 1))


def test_probabilities_of_the_configuration_are_obeyed() -> None:
    given = sequences([128] * 50)
    always = MaskedConfig(kind="masked", mask_probability=1.0, random_probability=0.0)
    corrupted = corrupt(always, given)
    places = corrupted.targets["masked_lm"].places
    assert (corrupted.inputs.tokens[places] == SPECIAL.mask).all()
    never = MaskedConfig(kind="masked", mask_probability=0.0, random_probability=0.0)
    corrupted = corrupt(never, given)
    assert (corrupted.inputs.tokens == given.tokens).all()
    assert len(corrupted.targets["masked_lm"].places) == 50 * 19


ROBERTA = MaskedConfig(kind="masked", rounding="stochastic", random_specials=False)


def test_stochastic_rounding_keeps_the_share() -> None:
    """RoBERTa's: 19 of 128 tokens with 0.8, 20 with 0.2; never none."""
    for length, few, share in ((128, 19, 0.2), (512, 76, 0.8), (20, 3, 0.0), (3, 1, 0.0)):
        given = sequences([length] * 4000)
        corrupted = corrupt(ROBERTA, given)
        counts = np.array([len(own) for own in places_of(corrupted)])
        assert set(counts.tolist()) == ({few, few + 1} if share else {few})
        assert abs((counts > few).mean() - share) <= 4 * math.sqrt(share * (1 - share) / 4000)
        assert (rebuilt_of(corrupted) == given.tokens).all()
        check_bounds(ROBERTA, CONTEXT, given, corrupted)
    most = MaskedConfig(kind="masked", rounding="stochastic", max_targets=19)
    assert {len(own) for own in places_of(corrupt(most, sequences([128] * 50)))} == {19}
    check_nothing(ROBERTA, CONTEXT)


@given(st.lists(st.integers(3, 60), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_stochastic_rounding_is_the_same_in_any_company(lengths: list[int], random) -> None:
    some = random.sample(range(len(lengths)), random.randint(1, len(lengths)))
    check_purity(ROBERTA, CONTEXT, sequences(lengths), some)


def test_random_tokens_are_plain_where_specials_are_left_out() -> None:
    config = replace(ROBERTA, mask_probability=0.0, random_probability=1.0)
    context = Context(replace(SPECIAL, end=999))
    given = sequences([128] * 3000)
    corrupted = config.corrupt(context, given, seed=1, epoch=0)
    drawn = corrupted.inputs.tokens[corrupted.targets["masked_lm"].places]
    counts = np.bincount(drawn, minlength=SPECIAL.size)
    special = [SPECIAL.pad, SPECIAL.start, SPECIAL.separator, SPECIAL.mask, 999]
    assert counts[special].sum() == 0
    plain = np.delete(counts, special)
    expected = len(drawn) / plain.size
    statistic = ((plain - expected) ** 2 / expected).sum()
    assert abs(statistic - (plain.size - 1)) < 4 * math.sqrt(2 * (plain.size - 1))


def test_what_was_made_before_roberta_is_found_again() -> None:
    assert to_plain(MASKED).keys() == {
        "kind", "share", "max_targets", "mask_probability", "random_probability"
    }  # fmt: skip


def test_epochs_and_seeds_choose_other_places() -> None:
    given = sequences([128] * 50)
    chosen = [
        set(corrupt(MASKED, given, seed=seed, epoch=epoch).targets["masked_lm"].places.tolist())
        for seed, epoch in ((1, 0), (1, 1), (2, 0))
    ]
    for a in range(3):
        for b in range(a):
            overlap = len(chosen[a] & chosen[b]) / (50 * 19)
            assert overlap < 0.25, "19 of 125 places by chance are 15 %"


LENGTHS = st.lists(st.integers(3, 40), min_size=1, max_size=12)


@given(LENGTHS, st.integers(0, 5), st.integers(0, 2**63))
def test_original_is_rebuilt_from_the_targets(lengths: list[int], epoch: int, seed: int) -> None:
    given = sequences(lengths)
    corrupted = corrupt(MASKED, given, seed=seed, epoch=epoch)
    targets = corrupted.targets["masked_lm"]
    assert (np.diff(targets.places) > 0).all()
    assert (rebuilt_of(corrupted) == given.tokens).all()
    assert not np.isin(targets.labels, [SPECIAL.start, SPECIAL.separator, SPECIAL.pad]).any()


@given(LENGTHS, st.randoms(use_true_random=False))
def test_a_sequence_is_corrupted_alike_in_any_company(lengths: list[int], random) -> None:
    some = random.sample(range(len(lengths)), random.randint(1, len(lengths)))
    check_purity(MASKED, CONTEXT, sequences(lengths), some)


@pytest.mark.parametrize(("length", "count"), [(128, 19), (512, 77)])
def test_a_million_real_tokens_have_the_published_shares(prose, length: int, count: int) -> None:
    context, given = prose(length)
    corrupted = MASKED.corrupt(context, given, seed=1, epoch=0)
    targets = corrupted.targets["masked_lm"]
    assert (np.bincount(targets.places // length) == count).all()
    special = context.special
    assert not np.isin(targets.labels, [special.start, special.separator, special.pad]).any()
    now = corrupted.inputs.tokens[targets.places]
    num_tokens = len(given.tokens)
    for hits, share in (((now == special.mask).sum(), 0.8), ((now == targets.labels).sum(), 0.1)):
        expected = share * count / length * num_tokens
        assert abs(hits - expected) < 4 * math.sqrt(expected) + 0.001 * expected


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("layout", ["pairs", "blocks"])
def test_static_copy_equals_dynamic_epoch(tmp_path: Path, layout: str, pack: bool) -> None:
    write_documents(tmp_path / "raw" / "a.txt", make_text(60))
    common = {
        "length": 32,
        "layout": {"kind": layout},
        "pack": pack,
        "corruption": {"kind": "masked", "max_targets": 4},
        "copies": 3,
    }
    preparation = prepare_config(
        tmp_path, examples={mode: common | {"mode": mode} for mode in ("static", "dynamic")}
    )
    run_stages(preparation)
    corruption = preparation.examples["static"].corruption
    for split, copies in (("train", 3), ("heldout", 1)):
        static, dynamic = (
            RowSet(preparation.examples_directory(mode), split, seed=preparation.seed)
            for mode in ("static", "dynamic")
        )
        assert static.num_rows == dynamic.num_rows
        assert len(static.num_rows) == copies
        assert static.static
        assert not dynamic.static
        ids = []
        for epoch in range(copies):
            rows = np.random.default_rng(epoch).permutation(static.num_rows[epoch])
            a = static.arrays(corruption, rows, epoch=epoch)
            b = dynamic.arrays(corruption, rows, epoch=epoch)
            assert a.named().keys() == b.named().keys()
            for name, values in a.named().items():
                assert (values == b.named()[name]).all(), name
            assert (a.targets["masked_lm"].labels >= 0).sum() > 0
            ids.append(a.ids[np.argsort(rows)].tobytes())
        assert len(set(ids)) == copies, "copies differ from each other"


@pytest.mark.parametrize(
    "scheme",
    [
        MASKED,
        NgramsConfig(kind="ngrams"),
        ReplacedConfig(kind="replaced"),
        ReplacedConfig(kind="replaced", picks="without_replacement"),
        ReplacedConfig(kind="replaced", picks="windows"),
        SmoothedConfig(kind="smoothed"),
        WholeWordConfig(kind="whole_word"),
        WindowsConfig(kind="windows"),
        SpansConfig(kind="spans"),
        UnilmConfig(kind="unilm", mode="bidirectional"),
    ],
    ids=lambda scheme: getattr(scheme, "picks", scheme.kind),
)
def test_ends_of_documents_are_never_chosen(scheme: Scheme) -> None:
    """A vocabulary's token for them (XLNet's <eod>) is as special as the separator."""
    often = np.ones(SPECIAL.size, np.int64)
    tables = {"frequencies": often, "cumulative_frequencies": np.cumsum(often)}
    context = Context(replace(SPECIAL, end=9), tables)
    given = from_lists(
        [[2, 9, 7, 9, 9, 9, 9, 9, 3]] * 200, marks=[[0, 1, 1, 1, 0, 1, 1, 1, 0]] * 200
    )
    targets = scheme.corrupt(context, given, seed=1, epoch=0).targets["masked_lm"]
    assert set(targets.labels.tolist()) == {7}
    assert (np.unique(targets.places) == np.arange(200) * 9 + 2).all()


@pytest.mark.parametrize(
    "scheme",
    [
        MASKED,
        DropTokensConfig(kind="drop_tokens"),
        NgramsConfig(kind="ngrams"),
        ReplacedConfig(kind="replaced"),
        SmoothedConfig(kind="smoothed"),
        SpansConfig(kind="spans"),
        UnilmConfig(kind="unilm", mode="sequence"),
        UnitsConfig(kind="units", level="words"),
        WholeWordConfig(kind="whole_word"),
        WindowsConfig(kind="windows"),
    ],
    ids=lambda scheme: scheme.kind,
)
def test_a_vocabulary_without_a_mask_is_refused(scheme: Scheme) -> None:
    scheme.check(CONTEXT, 128)
    with pytest.raises(InputError, match="needs a vocabulary with special tokens for mask;"):
        scheme.check(Context(replace(SPECIAL, mask=ABSENT)), 128)


def test_where_nothing_is_masked_no_mask_is_needed() -> None:
    scheme = ReplacedConfig(kind="replaced", mask_share=0.0)
    scheme.check(Context(replace(SPECIAL, mask=ABSENT)), 128)
