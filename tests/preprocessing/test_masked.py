import math
from pathlib import Path

import numpy as np
import pytest
from corpora import make_text, prepare_config, run_stages, write_documents
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.corruption import SpecialIds, corrupt, max_targets
from preprocessing.corruption.base import Corrupted, Sequences
from preprocessing.corruption.masked import MaskedConfig, num_targets
from preprocessing.rows import RowSet

SPECIAL = SpecialIds(size=1000, pad=0, start=2, separator=3, mask=4)
MASKED = MaskedConfig(kind="masked")


def sequences(lengths: list[int], *, row_length: int | None = None, first_id: int = 0) -> Sequences:
    """One sequence a row: [CLS], distinct-looking tokens from 5 on, [SEP]s, padding."""
    width = row_length or max(lengths)
    tokens = np.zeros((len(lengths), width), dtype=np.int64)
    for row, length in enumerate(lengths):
        ids = (first_id + row) * 7919 + np.arange(length)
        tokens[row, :length] = 5 + ids % 995
        tokens[row, 0], tokens[row, length - 1] = SPECIAL.start, SPECIAL.separator
        if length > 4:
            tokens[row, length // 2] = SPECIAL.separator
    return Sequences(
        tokens.reshape(-1),
        np.arange(len(lengths)) * width,
        np.array(lengths),
        np.arange(first_id, first_id + len(lengths)).astype(np.uint64),
    )


def targets_of(corrupted: Corrupted, width: int) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for place in corrupted.target_places.tolist():
        found.setdefault(place // width, []).append(place % width)
    return found


@pytest.mark.parametrize(
    ("length", "count"),
    [(3, 1), (4, 1), (5, 1), (10, 2), (20, 3), (30, 4), (50, 8), (128, 19), (512, 77)],
)
def test_so_many_targets_has_a_sequence(length: int, count: int) -> None:
    given_lengths = [length] * 20
    corrupted = corrupt(MASKED, SPECIAL, sequences(given_lengths), seed=1, epoch=0)
    found = targets_of(corrupted, length)
    assert [len(found[row]) for row in range(20)] == [min(count, length - 2)] * 20
    assert max_targets(MASKED, np.array([length])).tolist() == [count]


def test_counts_round_half_to_even_as_the_reference() -> None:
    lengths = np.arange(3, 5000)
    for share in (0.15, 0.05, 0.25, 0.5):
        config = MaskedConfig(kind="masked", share=share)
        expected = [max(1, round(length * share)) for length in lengths.tolist()]
        assert num_targets(config, lengths).tolist() == expected
    assert num_targets(MASKED, np.array([10, 30])).tolist() == [2, 4], "1.5 and 4.5"


def test_max_targets_bounds_a_sequence() -> None:
    config = MaskedConfig(kind="masked", max_targets=20)
    assert num_targets(config, np.array([5, 128, 133, 137, 512])).tolist() == [1, 19, 20, 20, 20]
    corrupted = corrupt(config, SPECIAL, sequences([512] * 8), seed=1, epoch=0)
    assert len(corrupted.target_places) == 160


@pytest.mark.parametrize("length", [3, 4, 5])
def test_shortest_sequences(length: int) -> None:
    given = sequences([length] * 400, row_length=8)
    corrupted = corrupt(MASKED, SPECIAL, given, seed=1, epoch=0)
    places = np.array([found for (found,) in targets_of(corrupted, 8).values()])
    plain = [place for place in range(1, length - 1) if not (length == 5 and place == 2)]
    assert sorted(set(places.tolist())) == plain
    counts = np.array([(places == place).sum() for place in plain])
    assert (np.abs(counts - 400 / len(plain)) < 4 * math.sqrt(400)).all()


def test_sequence_without_a_plain_token_has_no_target() -> None:
    tokens = np.array([2, 3, 0, 0, 2, 9, 3, 0])
    given = Sequences(tokens, np.array([0, 4]), np.array([2, 3]), np.array([0, 1], np.uint64))
    corrupted = corrupt(MASKED, SPECIAL, given, seed=1, epoch=0)
    assert corrupted.target_places.tolist() == [5]
    alone = Sequences(tokens[:4], np.array([0]), np.array([2]), np.array([0], np.uint64))
    assert corrupt(MASKED, SPECIAL, alone, seed=1, epoch=0).target_places.tolist() == []
    nothing = Sequences(tokens[:0], np.array([], int), np.array([], int), np.array([], np.uint64))
    assert corrupt(MASKED, SPECIAL, nothing, seed=1, epoch=0).target_places.tolist() == []


def test_worked_example() -> None:
    words = ["[CLS]", "the", "man", "went", "to", "a", "store", ".", "[SEP]", "he", "left", "[SEP]"]
    plain = sorted({*words} - {"[CLS]", "[SEP]"})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *plain]
    tokens = np.array([vocabulary.index(word) for word in words])
    special = SpecialIds(len(vocabulary), pad=0, start=2, separator=3, mask=4)
    given = Sequences(tokens, np.array([0]), np.array([12]), np.array([69], np.uint64))
    corrupted = corrupt(MASKED, special, given, seed=1, epoch=0)
    assert corrupted.target_places.tolist() == [2, 7]
    assert [vocabulary[i] for i in corrupted.target_ids] == ["man", "."]
    assert [vocabulary[i] for i in corrupted.tokens] == (
        [
            "[CLS]",
            "the",
            "[MASK]",
            "went",
            "to",
            "a",
            "store",
            "store",
            "[SEP]",
            "he",
            "left",
            "[SEP]",
        ]
    )


def test_fates_places_and_random_tokens() -> None:
    """80 / 10 / 10 within four standard errors; everything else uniform."""
    rows, length = 6000, 128
    given = sequences([length] * rows)
    corrupted = corrupt(MASKED, SPECIAL, given, seed=1, epoch=0)
    count = len(corrupted.target_places)
    assert count == rows * 19
    now = corrupted.tokens[corrupted.target_places]
    # A random token equals [MASK] or the original one with 1 / size each.
    for share, hits in (
        (0.8 + 0.1 / SPECIAL.size, (now == SPECIAL.mask).sum()),
        (0.1 + 0.1 / SPECIAL.size, (now == corrupted.target_ids).sum()),
    ):
        assert abs(hits / count - share) < 4 * math.sqrt(share * (1 - share) / count)
    others = now[(now != SPECIAL.mask) & (now != corrupted.target_ids)]
    counts = np.delete(np.bincount(others, minlength=SPECIAL.size), SPECIAL.mask)
    expected = counts.sum() / counts.size
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = counts.size - 1
    assert abs(statistic - freedom) < 4 * math.sqrt(2 * freedom)
    assert counts[[SPECIAL.pad, SPECIAL.start, SPECIAL.separator]].min() > 0, "specials included"

    places = np.bincount(corrupted.target_places % length, minlength=length)
    plain = np.delete(places, [0, length // 2, length - 1])
    assert places[[0, length // 2, length - 1]].sum() == 0
    expected = count / plain.size
    statistic = ((plain - expected) ** 2 / expected).sum()
    assert abs(statistic - (plain.size - 1)) < 4 * math.sqrt(2 * (plain.size - 1))


def test_probabilities_of_the_configuration_are_obeyed() -> None:
    given = sequences([128] * 50)
    always = MaskedConfig(kind="masked", mask_probability=1.0, random_probability=0.0)
    corrupted = corrupt(always, SPECIAL, given, seed=1, epoch=0)
    assert (corrupted.tokens[corrupted.target_places] == SPECIAL.mask).all()
    never = MaskedConfig(kind="masked", mask_probability=0.0, random_probability=0.0)
    corrupted = corrupt(never, SPECIAL, given, seed=1, epoch=0)
    assert (corrupted.tokens == given.tokens).all()
    assert len(corrupted.target_places) == 50 * 19


def test_epochs_and_seeds_choose_other_places() -> None:
    given = sequences([128] * 50)
    chosen = [
        set(corrupt(MASKED, SPECIAL, given, seed=seed, epoch=epoch).target_places.tolist())
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
    before = given.tokens.copy()
    corrupted = corrupt(MASKED, SPECIAL, given, seed=seed, epoch=epoch)
    assert (given.tokens == before).all(), "the input is not written to"
    assert (np.diff(corrupted.target_places) > 0).all()
    rebuilt = corrupted.tokens.copy()
    rebuilt[corrupted.target_places] = corrupted.target_ids
    assert (rebuilt == before).all()
    assert not np.isin(corrupted.target_ids, [SPECIAL.start, SPECIAL.separator, SPECIAL.pad]).any()


@given(LENGTHS, st.randoms(use_true_random=False))
def test_a_sequence_is_corrupted_alike_in_any_company(lengths: list[int], random) -> None:
    given = sequences(lengths)
    width = max(lengths)
    whole = corrupt(MASKED, SPECIAL, given, seed=1, epoch=3)
    rows = whole.tokens.reshape(-1, width)
    targets = targets_of(whole, width)
    some = random.sample(range(len(lengths)), random.randint(1, len(lengths)))
    part = Sequences(
        given.tokens.reshape(-1, width)[some].reshape(-1),
        np.arange(len(some)) * width,
        given.lengths[some],
        given.ids[some],
    )
    corrupted = corrupt(MASKED, SPECIAL, part, seed=1, epoch=3)
    assert (corrupted.tokens.reshape(-1, width) == rows[some]).all()
    assert targets_of(corrupted, width) == {
        new: targets[old] for new, old in enumerate(some) if old in targets
    }


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
            for name in ("ids", "sequence_ids", "positions", "segment_ids"):
                assert (getattr(a, name) == getattr(b, name)).all()
            assert a.targets.keys() == b.targets.keys()
            for name, pair in a.targets.items():
                for one, other in zip(pair, b.targets[name], strict=True):
                    assert (one == other).all()
            assert (a.targets["masked_lm"][1] >= 0).sum() > 0
            ids.append(a.ids[np.argsort(rows)].tobytes())
        assert len(set(ids)) == copies, "copies differ from each other"
