import math
from pathlib import Path

import numpy as np
import pytest
from corpora import make_text, prepare_config, run_stages, write_documents
from hypothesis import given
from hypothesis import strategies as st
from schemes import apart, check_bounds, check_nothing, check_purity, from_lists

from preprocessing.building import RowMaker, raw_length, special_ids
from preprocessing.corruption import (
    Context,
    Sequences,
    SpanCorruptionConfig,
    SpecialIds,
)
from preprocessing.corruption.span_corruption import raw_length_of
from preprocessing.draws import bits
from preprocessing.rows import RowSet
from preprocessing.storage import InputError
from preprocessing.tokens import TokenStore
from preprocessing.vocabulary import Vocabulary

SPANS = SpanCorruptionConfig(kind="span_corruption")
SPECIAL = SpecialIds(
    size=1000, pad=0, start=2, separator=3, mask=4, sentinels=(*range(999, 899, -1),)
)
CONTEXT = Context(SPECIAL)
LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=12)
SHARES = st.sampled_from([0.15, 0.2, 0.5, 0.9])
MEANS = st.sampled_from([1.0, 2.0, 3.0, 7.5])


def sequences(lengths: list[int]) -> Sequences:
    """Distinct-looking plain tokens, without special ones."""
    return from_lists(
        [
            (5 + (row * 7919 + np.arange(length)) % 890).tolist()
            for row, length in enumerate(lengths)
        ]
    )


def counts(length: int, share: float, mean: float) -> tuple[int, int]:
    """Noise and spans, as the paper's code rounds them."""
    if length == 1:
        return 1, 1
    noise = min(max(round(length * share), 1), length - 1)
    return noise, min(max(round(noise / mean), 1), length - noise)


def helper(length: int, share: float, mean: float) -> tuple[int, int]:
    """The search for lengths without padding, a token at a time."""

    def sides(tokens: int) -> tuple[int, int]:
        noise, spans = counts(tokens, share, mean)
        return tokens - noise + spans + 1, noise + spans + 1

    tokens = 1
    while sides(tokens + 1)[0] <= length:
        tokens += 1
    while share == 0.5 and sides(tokens)[1] > length:
        tokens -= 1
    return tokens, sides(tokens)[1]


def cut(key: np.uint64, size: int, pieces: int, draw: int) -> list[int]:
    """Lengths of the pieces, cut before the places with the smallest draws."""
    places = sorted(range(1, size), key=lambda place: int(bits(key, place, draw)) >> 11)
    ends = [*sorted(places[: pieces - 1]), size]
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


def reference(
    tokens: list[int], key: np.uint64, share: float, mean: float
) -> tuple[list[int], list[int]]:
    """What is seen and said of one sequence."""
    noise, spans = counts(len(tokens), share, mean)
    gone = cut(key, noise, spans, 0)
    stay = cut(key, len(tokens) - noise, spans, 1) if len(tokens) > 1 else [0]
    seen, said, rest = [], [], list(tokens)
    for sentinel, before, length in zip(SPECIAL.sentinels, stay, gone, strict=False):
        seen += [*rest[:before], sentinel]
        said += [sentinel, *rest[before : before + length]]
        rest = rest[before + length :]
    assert rest == []
    return [*seen, SPECIAL.separator], [*said, SPECIAL.separator]


@pytest.mark.parametrize(
    ("length", "share", "mean", "expected"),
    [
        (64, 0.2, 2.0, (70, 22)),
        (64, 0.2, 1.0, (63, 27)),
        (512, 0.15, 3.0, (568, 114)),
        (128, 0.5, 3.0, (190, 128)),
    ],
)
def test_rows_are_filled_as_by_the_published_helper(
    length: int, share: float, mean: float, expected: tuple[int, int]
) -> None:
    assert raw_length_of(length, share, mean) == helper(length, share, mean) == expected


@given(st.integers(8, 600), SHARES, MEANS)
def test_the_closed_form_agrees_with_the_search(length: int, share: float, mean: float) -> None:
    tokens, said = raw_length_of(length, share, mean)
    assert (tokens, said) == helper(length, share, mean)
    scheme = SpanCorruptionConfig(kind="span_corruption", share=share, mean_length=mean)
    more = scheme.bounds(CONTEXT, np.arange(1, 4 * length)).inputs
    assert (np.diff(more) >= 0).all()


def test_worked_example() -> None:
    words = ["Thank", "you", "for", "inviting", "me", "to", "your", "party", "last", "week"]
    vocabulary = ["[PAD]", "</s>", *words, "<1>", "<0>"]
    special = SpecialIds(len(vocabulary), pad=0, separator=1, sentinels=(13, 12))
    given = from_lists([[vocabulary.index(word) for word in words]], ids=[36])
    scheme = SpanCorruptionConfig(kind="span_corruption", share=0.4, mean_length=2.0)
    (found,) = apart(scheme.corrupt(Context(special), given, seed=1, epoch=0))

    def text(name: str) -> str:
        return " ".join(vocabulary[int(index)] for index in found[name])

    assert text("tokens") == "Thank you for inviting <0> party last <1> </s>"
    assert text("denoising labels") == "<0> me to your <1> week </s>"
    assert text("decoder") == "[PAD] <0> me to your <1> week"
    assert found["denoising places"] == [0, 1, 2, 3, 4, 5, 6]


@given(LENGTHS, SHARES, MEANS, st.integers(0, 2**63), st.integers(0, 5))
def test_compiled_equals_the_plain_reference(
    lengths: list[int], share: float, mean: float, seed: int, epoch: int
) -> None:
    given = sequences(lengths)
    scheme = SpanCorruptionConfig(kind="span_corruption", share=share, mean_length=mean)
    corrupted = scheme.corrupt(CONTEXT, given, seed=seed, epoch=epoch)
    keys = given.keys(seed, "span corruption", epoch)
    for own, found, key in zip(
        np.split(given.tokens, given.offsets[1:-1]), apart(corrupted), keys, strict=True
    ):
        seen, said = reference(own.tolist(), key, share, mean)
        assert found["tokens"] == seen
        assert found["denoising labels"] == said
        assert found["decoder"] == [SPECIAL.pad, *said[:-1]]
        assert found["denoising places"] == list(range(len(said)))
        assert rebuilt(found) == own.tolist()
        assert len(said) > 2, "something is asked"
    limits = scheme.bounds(CONTEXT, given.lengths)
    assert corrupted.inputs.lengths.tolist() == limits.inputs.tolist(), "bounds are exact"
    assert limits.decoder is not None
    assert corrupted.decoder is not None
    assert np.diff(corrupted.decoder.offsets).tolist() == limits.decoder.tolist()
    check_bounds(scheme, CONTEXT, given, corrupted)


def rebuilt(found: dict[str, list[float]]) -> list[float]:
    """The original from both sides: every sentinel gives way to what it stands for."""
    spans: dict[float, list[float]] = {}
    for token in found["denoising labels"][:-1]:
        if token in SPECIAL.sentinels:
            current = spans.setdefault(token, [])
        else:
            current.append(token)
    tokens: list[float] = []
    for token in found["tokens"][:-1]:
        tokens += spans.get(token, [token])
    return tokens


@pytest.mark.parametrize(
    ("length", "sides"), [(1, (2, 3)), (2, (3, 3)), (3, (4, 3)), (568, (512, 114))]
)
def test_shortest_and_full_sequences(length: int, sides: tuple[int, int]) -> None:
    corrupted = SPANS.corrupt(CONTEXT, sequences([length] * 9), seed=1, epoch=0)
    assert corrupted.decoder is not None
    assert (corrupted.inputs.lengths == sides[0]).all()
    assert (np.diff(corrupted.decoder.offsets) == sides[1]).all()
    check_nothing(SPANS, CONTEXT)


@given(LENGTHS, st.randoms(use_true_random=False))
def test_a_sequence_is_corrupted_alike_in_any_company(lengths: list[int], random) -> None:
    some = random.sample(range(len(lengths)), random.randint(1, len(lengths)))
    check_purity(SPANS, CONTEXT, sequences(lengths), some)


def test_special_tokens_of_a_frame_are_left_out() -> None:
    framed = from_lists([[2, 10, 11, 3, 12, 13, 3], [2, 3]])
    plain = from_lists([[10, 11, 12, 13], []])
    with_frame, without = (
        apart(SPANS.corrupt(CONTEXT, own, seed=1, epoch=0)) for own in (framed, plain)
    )
    assert with_frame == without
    assert with_frame[1]["tokens"] == with_frame[1]["denoising labels"] == [SPECIAL.separator]
    check_bounds(SPANS, CONTEXT, framed, SPANS.corrupt(CONTEXT, framed, seed=1, epoch=0))


def test_all_ways_to_cut_are_equally_likely() -> None:
    """8 tokens, 4 of them noise in 2 spans: 3 ways to cut the noise, 3 to cut the rest."""
    scheme = SpanCorruptionConfig(kind="span_corruption", share=0.5, mean_length=2.0)
    count = 9000
    corrupted = scheme.corrupt(CONTEXT, sequences([8] * count), seed=3, epoch=0)
    shapes = [
        (own["tokens"].index(999), own["denoising labels"].index(998)) for own in apart(corrupted)
    ]
    kinds = {shape: shapes.count(shape) for shape in set(shapes)}
    assert len(kinds) == 9
    assert all(abs(own - count / 9) < 4 * math.sqrt(count * 8 / 81) for own in kinds.values())


@pytest.mark.parametrize("length", [128, 512])
def test_a_million_real_tokens_have_the_published_counts(prose, length: int) -> None:
    context, given = prose(length, specials=False)
    special = context.special
    sentinels = tuple(range(special.size, special.size + 100))
    context = Context(SpecialIds(**{**vars(special), "sentinels": sentinels}))
    corrupted = SPANS.corrupt(context, given, seed=1, epoch=0)
    noise, spans = counts(length, 0.15, 3.0)
    assert noise == round(0.15 * length)
    rows = len(given.ids)
    assert rows * length >= 1_000_000
    seen = corrupted.inputs.tokens.reshape(rows, length - noise + spans + 1)
    said = corrupted.targets["denoising"].labels.reshape(rows, noise + spans + 1)
    for side in (seen, said):
        assert ((side >= special.size).sum(axis=1) == spans).all()
        assert (side[:, -1] == special.separator).all()
        inner = side[:, :-1]
        assert not np.isin(inner, [special.pad, special.start, special.separator]).any()
    assert (said[:, 0] == sentinels[0]).all()
    first = given.tokens.reshape(rows, length)[:, 0]
    assert (seen[:, 0] == first).all(), "the first token stays"
    assert (seen[:, -2] >= special.size).all(), "the last one goes"
    # The lengths of the first span are those of a uniform composition: mean noise / spans.
    firsts = (said == sentinels[1]).argmax(axis=1) - 1
    assert abs(firsts.mean() - noise / spans) < 4 * firsts.std() / math.sqrt(rows)


def test_too_few_sentinels_are_refused_with_a_way_out() -> None:
    few = Context(SpecialIds(size=1000, pad=0, separator=3, sentinels=(999, 998)))
    with pytest.raises(
        InputError, match=r"up to 28 spans of 568 tokens.*has 2 sentinels.*sentinels: 28"
    ):
        SPANS.check(few, 568)
    with pytest.raises(InputError, match="has 2 sentinels"):
        SPANS.corrupt(few, sequences([10, 568]), seed=1, epoch=0)
    SPANS.check(few, 10)
    with pytest.raises(InputError, match="special tokens for separator, pad"):
        SPANS.check(Context(SpecialIds(size=9, sentinels=(8,))), 4)


def test_static_copy_equals_dynamic_epoch(tmp_path: Path) -> None:
    write_documents(tmp_path / "raw" / "a.txt", make_text(60))
    common = {
        "length": 32,
        "decoder_length": 12,
        "layout": {"kind": "blocks"},
        "frame": "none",
        "pack": True,
        "corruption": {"kind": "span_corruption"},
        "copies": 2,
    }
    preparation = prepare_config(
        tmp_path,
        tokenizer={"kind": "wordpiece", "vocab_size": 300, "sentinels": 10},
        examples={mode: common | {"mode": mode} for mode in ("static", "dynamic")},
    )
    run_stages(preparation)
    corruption = preparation.examples["static"].corruption
    static, dynamic = (
        RowSet(preparation.examples_directory(mode), "train", seed=preparation.seed)
        for mode in ("static", "dynamic")
    )
    assert static.num_rows == dynamic.num_rows
    assert static.special.sentinels == tuple(range(5, 15))
    for epoch in range(2):
        rows = np.random.default_rng(epoch).permutation(static.num_rows[epoch])
        a = static.arrays(corruption, rows, epoch=epoch)
        b = dynamic.arrays(corruption, rows, epoch=epoch)
        assert a.named().keys() == b.named().keys()
        for name, values in a.named().items():
            assert (values == b.named()[name]).all(), name
        assert a.decoder is not None
        assert (a.sequence_ids.max(axis=1) == a.decoder.sequence_ids.max(axis=1)).all()
        assert a.sequence_ids.max() > 1, "several sequences share a row"

    vocabulary = Vocabulary.load(preparation.tokenizer_directory)
    config = preparation.examples["static"]
    context = Context(special_ids(vocabulary))
    assert raw_length(config, context) == helper(32, 0.15, 3.0)[0]
    store = TokenStore(preparation.tokens_directory, "train")
    maker = RowMaker(config, vocabulary, store, seed=1)
    sizes = maker.cut(range(store.num_documents), 0).lengths
    assert sizes.max() == helper(32, 0.15, 3.0)[0]
