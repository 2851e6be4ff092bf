import math
from pathlib import Path

import numpy as np
import pytest
from corpora import make_text, prepare_config, run_stages, write_documents
from hypothesis import given
from hypothesis import strategies as st
from schemes import CONTEXT, SPECIAL, apart, check_bounds, check_nothing, check_purity, from_lists

from preprocessing.corruption import PrefixDenoisingConfig, Sequences, SpecialIds
from preprocessing.draws import integers
from preprocessing.rows import RowSet
from preprocessing.storage import InputError

PREFIX = PrefixDenoisingConfig(kind="prefix_denoising")
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=12)


def sequences(lengths: list[int]) -> Sequences:
    """Distinct-looking plain tokens, without special ones."""
    return from_lists(
        [
            (5 + (row * 7919 + np.arange(length)) % 995).tolist()
            for row, length in enumerate(lengths)
        ]
    )


def test_worked_example() -> None:
    vocabulary = ["[PAD]", "</s>", "Thank", "you", "for", "inviting", "me"]
    special = SpecialIds(len(vocabulary), pad=0, separator=1)
    given = from_lists([[2, 3, 4, 5, 6]], ids=[1])
    corrupted = PREFIX.corrupt(type(CONTEXT)(special), given, seed=1, epoch=0)
    (found,) = apart(corrupted)

    def text(name: str) -> str:
        return " ".join(vocabulary[int(index)] for index in found[name])

    assert text("tokens") == "Thank you for </s>"
    assert text("denoising labels") == "inviting me </s>"
    assert text("decoder") == "[PAD] inviting me"


@given(LENGTHS, st.integers(0, 2**63), st.integers(0, 5))
def test_both_sides_together_are_the_original(lengths: list[int], seed: int, epoch: int) -> None:
    given = sequences(lengths)
    corrupted = PREFIX.corrupt(CONTEXT, given, seed=seed, epoch=epoch)
    keys = given.keys(seed, "prefix denoising", epoch)
    for own, found, key in zip(
        np.split(given.tokens, given.offsets[1:-1]), apart(corrupted), keys, strict=True
    ):
        length = len(own)
        split = 0 if length == 1 else 1 + int(integers(np.array([key]), 0, 0, length - 1)[0])
        said = [*own[split:].tolist(), SPECIAL.separator]
        assert found["tokens"] == [*own[:split].tolist(), SPECIAL.separator]
        assert found["denoising labels"] == said
        assert found["decoder"] == [SPECIAL.pad, *said[:-1]]
        assert found["denoising places"] == list(range(len(said)))
        assert len(said) > 1
    check_bounds(PREFIX, CONTEXT, given, corrupted)


def test_shortest_sequences_and_none() -> None:
    one, two, three = apart(PREFIX.corrupt(CONTEXT, sequences([1, 2, 3]), seed=1, epoch=0))
    assert (len(one["tokens"]), len(one["decoder"])) == (1, 2)
    assert (len(two["tokens"]), len(two["decoder"])) == (2, 2)
    assert len(three["tokens"]) + len(three["decoder"]) == 5
    check_nothing(PREFIX, CONTEXT)
    bounds = PREFIX.bounds(CONTEXT, np.array([1, 2, 3, 512]))
    assert bounds.inputs.tolist() == [1, 2, 3, 512]
    assert bounds.decoder is not None
    assert bounds.decoder.tolist() == [2, 2, 3, 512]


def test_special_tokens_of_a_frame_are_left_out() -> None:
    framed = from_lists([[2, 10, 11, 3, 12, 13, 3], [2, 3]])
    corrupted = PREFIX.corrupt(CONTEXT, framed, seed=1, epoch=0)
    whole, nothing = apart(corrupted)
    assert whole["tokens"][:-1] + whole["denoising labels"][:-1] == [10, 11, 12, 13]
    assert nothing["tokens"] == nothing["denoising labels"] == [SPECIAL.separator]
    check_bounds(PREFIX, CONTEXT, framed, corrupted)


@given(LENGTHS, st.randoms(use_true_random=False))
def test_a_sequence_is_corrupted_alike_in_any_company(lengths: list[int], random) -> None:
    some = random.sample(range(len(lengths)), random.randint(1, len(lengths)))
    check_purity(PREFIX, CONTEXT, sequences(lengths), some)


@pytest.mark.parametrize("length", [128, 512])
def test_splits_of_a_million_real_tokens_are_uniform(prose, length: int) -> None:
    context, given = prose(length, specials=False)
    corrupted = PREFIX.corrupt(context, given, seed=1, epoch=0)
    rows = len(given.ids)
    assert rows * length >= 1_000_000
    splits = corrupted.inputs.lengths - 1
    assert splits.min() >= 1
    assert splits.max() <= length - 1
    deviation = math.sqrt(((length - 1) ** 2 - 1) / 12)
    assert abs(splits.mean() - length / 2) < 4 * deviation / math.sqrt(rows)
    assert abs(splits.std() - deviation) < 4 * deviation / math.sqrt(rows)
    said = corrupted.targets["denoising"].labels
    assert len(said) + len(corrupted.inputs.tokens) == rows * (length + 2)
    special = context.special
    for side in (said, corrupted.inputs.tokens):
        assert (side == special.separator).sum() == rows
        assert not np.isin(side, [special.pad, special.start]).any()


def test_vocabulary_without_an_end_is_refused() -> None:
    with pytest.raises(InputError, match="special tokens for separator"):
        PREFIX.check(type(CONTEXT)(SpecialIds(size=9, pad=0)), 4)


def test_static_copy_equals_dynamic_epoch(tmp_path: Path) -> None:
    write_documents(tmp_path / "raw" / "a.txt", make_text(40))
    common = {
        "length": 32,
        "decoder_length": 24,
        "layout": {"kind": "blocks"},
        "frame": "none",
        "corruption": {"kind": "prefix_denoising"},
        "pack": True,
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
    rows = np.random.default_rng(0).permutation(static.num_rows[0])
    a = static.arrays(corruption, rows, epoch=0)
    b = dynamic.arrays(corruption, rows, epoch=0)
    for name, values in a.named().items():
        assert (values == b.named()[name]).all(), name
    assert a.decoder is not None
    assert a.decoder.ids.shape[1] == 24
    later = dynamic.arrays(corruption, rows, epoch=1)
    assert (later.ids != b.ids).any()
