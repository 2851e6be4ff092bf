import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from corpora import make_text, prepare_config, run_stages, write_documents
from hypothesis import given
from hypothesis import strategies as st
from schemes import CONTEXT, SPECIAL, apart, check_bounds, check_nothing, check_purity, from_lists

from preprocessing.corruption import Context, InfillingConfig, Sequences, SpecialIds
from preprocessing.corruption.infilling import poisson_ends
from preprocessing.draws import bits, integers, uniform
from preprocessing.marks import SENTENCE, WORD
from preprocessing.rows import RowSet
from preprocessing.storage import InputError

INFILLING = InfillingConfig(kind="infilling")
RESERVED = {SPECIAL.start, SPECIAL.separator, SPECIAL.pad}
Given = list[tuple[list[int], list[int]]]


@st.composite
def texts(draw: st.DrawFn) -> Given:
    """Tokens and marks of some sequences: framed or not, with separators in between or not."""
    found: Given = []
    for _ in range(draw(st.integers(1, 6))):
        tokens, marks = [], []
        if draw(st.booleans()):
            tokens, marks = [SPECIAL.start], [0]
        for _ in range(draw(st.integers(1, 3))):
            for _ in range(draw(st.integers(0, 25))):
                tokens.append(draw(st.integers(5, 999)))
                marks.append(draw(st.sampled_from([0, WORD, WORD, WORD | SENTENCE])))
            if draw(st.booleans()):
                tokens.append(SPECIAL.separator)
                marks.append(0)
        if tokens:
            found.append((tokens, marks))
    return found or [([SPECIAL.start], [0])]


def sequences(given: Given) -> Sequences:
    return from_lists([tokens for tokens, _ in given], marks=[marks for _, marks in given])


def permuted(tokens: list[int], marks: list[int], key: np.uint64) -> tuple[list[int], list[int]]:
    """Sentences in the order of the draws of their first places, separators where they are."""
    out: list[tuple[int, int]] = []
    run: list[tuple[int, list[tuple[int, int]]]] = []

    def close() -> None:
        for _, sentence in sorted(run, key=lambda one: int(bits(key, one[0], 0))):
            (first, mark), *rest = sentence
            out.extend([(first, mark | WORD), *rest])
        run.clear()

    for place, (token, mark) in enumerate(zip(tokens, marks, strict=True)):
        if token in RESERVED:
            close()
            out.append((token, mark))
        elif not run or mark & SENTENCE:
            run.append((place, [(token, mark)]))
        else:
            run[-1][1].append((token, mark))
    close()
    return [token for token, _ in out], [mark for _, mark in out]


def filled(
    config: InfillingConfig, tokens: list[int], marks: list[int], key: np.uint64
) -> tuple[list[int], int]:
    """What is seen of a sequence whose sentences stand in order; and insertions left out."""
    count = len(tokens)
    words: list[list[int]] = []
    parted = True
    for place, token in enumerate(tokens):
        if token in RESERVED:
            parted = True
            continue
        if parted or marks[place] & WORD:
            words.append([])
        words[-1].append(place)
        parted = False
    word_of = {place: number for number, word in enumerate(words) for place in word}

    budget = math.ceil(config.share * len(words))
    ends, spans, between, number = poisson_ends(config.mean_length).tolist(), [], 0, 0
    while sum(spans) < budget:
        draw = float(uniform(key, number, 5))
        length = next(length for length, end in enumerate(ends) if draw < end)
        number += 1
        if length:
            spans.append(min(length, budget - sum(spans)))
        else:
            between += 1

    starts = [word[0] for word in words]
    chosen = sorted(sorted(starts, key=lambda place: int(bits(key, place, 1)) >> 11)[: len(spans)])
    by_draw = sorted(range(len(spans)), key=lambda turn: int(bits(key, chosen[turn], 2)))
    gone, masked = set(), set()
    for place, span in zip(chosen, (spans[turn] for turn in by_draw), strict=True):
        masked.add(place)
        last = word_of[place] + span
        for other in range(place + 1, count):
            if tokens[other] in RESERVED or word_of[other] >= last:
                break
            gone.add(other)

    def mask(place: int, is_random: int, token: int) -> int:
        if float(uniform(key, place, is_random)) < config.random_share:
            return int(integers(key, place, token, SPECIAL.size))
        return SPECIAL.mask

    left = [
        mask(place, 3, 4) if place in masked else token
        for place, token in enumerate(tokens)
        if place not in gone
    ]
    dropped = max(0, between - (count - len(left)))
    between -= dropped
    lead = next((p for p, token in enumerate(tokens) if token not in RESERVED), count)
    tail = next((p for p, token in enumerate(tokens[::-1]) if token not in RESERVED), 0)
    room = range(lead, len(left) + between - (tail if lead < count else 0))
    holes = set(sorted(room, key=lambda place: int(bits(key, place, 6)) >> 11)[:between])
    rest = iter(left)
    seen = [
        mask(place, 7, 8) if place in holes else next(rest) for place in range(len(left) + between)
    ]
    return seen, dropped


CONFIGS = st.builds(
    InfillingConfig,
    kind=st.just("infilling"),
    permute=st.booleans(),
    share=st.sampled_from([0.05, 0.3, 0.9]),
    mean_length=st.sampled_from([0.5, 3.0, 8.0]),
    random_share=st.sampled_from([0.0, 0.1, 1.0]),
)


@given(texts(), CONFIGS, st.integers(0, 2**63), st.integers(0, 5))
def test_compiled_equals_the_plain_reference(
    given: Given, config: InfillingConfig, seed: int, epoch: int
) -> None:
    own = sequences(given)
    corrupted = config.corrupt(CONTEXT, own, seed=seed, epoch=epoch)
    keys = own.keys(seed, "infilling", epoch)
    for (tokens, marks), found, key in zip(given, apart(corrupted), keys, strict=True):
        said = list(tokens)
        if config.permute:
            tokens, marks = permuted(tokens, marks, key)
        assert found["tokens"] == filled(config, tokens, marks, key)[0]
        assert found["denoising labels"] == said, "the decoder is to say the original"
        assert found["decoder"] == [SPECIAL.separator, *said[:-1]]
        assert found["denoising places"] == list(range(len(said)))
        plain = [token for token in said if token not in RESERVED]
        if plain and not config.random_share:
            assert SPECIAL.mask in found["tokens"]
            rest = Counter(token for token in found["tokens"] if token != SPECIAL.mask)
            assert rest <= Counter(said)
            assert rest[SPECIAL.separator] == said.count(SPECIAL.separator)
            assert rest.total() < len(said), "something is gone"
    check_bounds(config, CONTEXT, own, corrupted)


VOCABULARY = ["<pad>", "<s>", "</s>", "[MASK]", "a", "b", "c", "d", "e", ".", "x", "y"]


def test_worked_example() -> None:
    special = SpecialIds(len(VOCABULARY), pad=0, start=1, separator=2, mask=3)
    both = WORD | SENTENCE
    given = from_lists(
        [[1, 4, 5, 9, 6, 7, 8, 9, 2]],
        ids=[1053],
        marks=[[0, both, WORD, WORD, both, WORD, WORD, WORD, 0]],
    )
    (found,) = apart(INFILLING.corrupt(Context(special), given, seed=1, epoch=0))

    def text(name: str) -> str:
        return " ".join(VOCABULARY[int(index)] for index in found[name])

    assert text("tokens") == "<s> c d [MASK] . [MASK] a [MASK] </s>"
    assert text("denoising labels") == "<s> a b . c d e . </s>"
    assert text("decoder") == "</s> <s> a b . c d e ."


def test_lengths_of_spans_are_poisson() -> None:
    for mean in (0.01, 3.0, 3.5, 100.0):
        ends = poisson_ends(mean)
        assert (np.diff(ends) >= 0).all()
        assert ends[-1] == 1
        expected = [math.exp(-mean + k * math.log(mean) - math.lgamma(k + 1)) for k in range(20)]
        shares = np.diff([0.0, *ends[:21]])[:20]
        assert np.allclose(shares[: len(ends) - 1], expected[: len(ends) - 1], atol=1e-11)


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("framed", [False, True])
def test_shortest_sequences(length: int, framed: bool) -> None:
    words, marks = list(range(10, 10 + length)), [WORD] * length
    given = (
        ([SPECIAL.start, *words, SPECIAL.separator], [0, *marks, 0]) if framed else (words, marks)
    )
    config = InfillingConfig(kind="infilling", random_share=0.0)
    own = sequences([given] * 50)
    corrupted = config.corrupt(CONTEXT, own, seed=1, epoch=0)
    for found in apart(corrupted):
        assert found["tokens"].count(SPECIAL.mask) == 1
        assert len(found["tokens"]) == len(given[0]), "one word of one token is one mask"
    check_bounds(config, CONTEXT, own, corrupted)


def test_nothing_to_hide_stays_as_it_is() -> None:
    check_nothing(INFILLING, CONTEXT)
    (found,) = apart(
        INFILLING.corrupt(CONTEXT, sequences([([2, 3, 3], [0, 0, 0])]), seed=1, epoch=0)
    )
    assert found["tokens"] == found["denoising labels"] == [2, 3, 3]


@given(texts(), st.randoms(use_true_random=False))
def test_a_sequence_is_corrupted_alike_in_any_company(given: Given, random) -> None:
    some = random.sample(range(len(given)), random.randint(1, len(given)))
    check_purity(INFILLING, CONTEXT, sequences(given), some)


def test_vocabulary_without_a_mask_is_refused() -> None:
    with pytest.raises(InputError, match="special tokens for mask"):
        INFILLING.check(Context(SpecialIds(size=9, separator=3)), 4)


@pytest.mark.parametrize("length", [128, 512])
def test_a_million_real_tokens_have_the_published_shares(prose, length: int) -> None:
    context, given = prose(length)
    special = context.special
    rows = len(given.ids)
    assert len(given.tokens) >= 1_000_000
    config = InfillingConfig(kind="infilling")
    corrupted = config.corrupt(context, given, seed=1, epoch=0)
    seen, offsets = corrupted.inputs.tokens, corrupted.inputs.offsets
    assert (corrupted.targets["denoising"].labels == given.tokens).all()
    assert (seen[offsets[:-1]] == special.start).all()
    assert (seen[offsets[1:] - 1] == special.separator).all()

    # Without random masks and with the same draws, masks can be counted.
    masked = InfillingConfig(kind="infilling", random_share=0.0)
    plain = masked.corrupt(context, given, seed=1, epoch=0)
    masks = plain.inputs.tokens == special.mask
    random = (seen[masks] != special.mask).sum() / masks.sum()
    share = 0.1 * (1 - 1 / special.size)
    assert abs(random - share) < 4 * math.sqrt(share * (1 - share) / masks.sum())
    assert (seen[~masks] == plain.inputs.tokens[~masks]).all()

    # Spans of a mean of 3 words, some of which run into each other, hold ceil(0.3 * words) words.
    starts = given.marks.reshape(rows, length) & WORD != 0
    starts[:, 1] = True
    words = starts.sum(axis=1)
    budget = np.ceil(0.3 * words)
    per_row = np.add.reduceat(masks, plain.inputs.offsets[:-1])
    generator = np.random.default_rng(0)
    model = [
        expected_masks(int(own), int(total), generator)
        for own, total in zip(budget, words, strict=True)
    ]
    counted, modelled = per_row.mean(), np.mean(model)
    error = math.hypot(per_row.std(), float(np.std(model))) / math.sqrt(rows)
    assert abs(counted - modelled) < 4 * error


def test_all_orders_of_sentences_are_equally_likely() -> None:
    both, count = WORD | SENTENCE, 6000
    words = [SPECIAL.start, *range(10, 19), SPECIAL.separator]
    given = sequences([(words, [0, *[both, WORD, WORD] * 3, 0])] * count)
    config = InfillingConfig(kind="infilling", share=0.01, random_share=0.0)
    orders: Counter[tuple[float, ...]] = Counter()
    for found in apart(config.corrupt(CONTEXT, given, seed=1, epoch=0)):
        middles = tuple(token for token in found["tokens"] if token in (11, 14, 17))
        orders[middles] += len(middles) == 3
    assert len(orders) == 6 + 6, "where a middle word is hidden, two are left"
    whole = {order: number for order, number in orders.items() if len(order) == 3}
    expected = sum(whole.values()) / 6
    assert expected > count / 12
    assert all(abs(own - expected) < 4 * math.sqrt(expected) for own in whole.values())


def expected_masks(budget: int, words: int, generator: np.random.Generator) -> int:
    """Masks of one sequence, by a model that knows words alone and draws as it likes."""
    spans, held, between = [], 0, 0
    while held < budget:
        span = int(generator.poisson(3.0))
        between += span == 0
        if span:
            spans.append(min(span, budget - held))
            held += spans[-1]
    starts = generator.permutation(words)[: len(spans)]
    covered = np.zeros(words + budget + 1, dtype=bool)
    for start, span in zip(starts, spans, strict=True):
        covered[start + 1 : start + span] = True
    return int((~covered[starts]).sum()) + between


def test_static_copy_equals_dynamic_epoch(tmp_path: Path) -> None:
    write_documents(tmp_path / "raw" / "a.txt", make_text(40))
    common = {
        "length": 32,
        "decoder_length": 32,
        "layout": {"kind": "blocks"},
        "corruption": {"kind": "infilling"},
        "pack": True,
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
    for epoch in range(2):
        rows = np.random.default_rng(epoch).permutation(static.num_rows[epoch])
        a = static.arrays(corruption, rows, epoch=epoch)
        b = dynamic.arrays(corruption, rows, epoch=epoch)
        assert a.named().keys() == b.named().keys()
        for name, values in a.named().items():
            assert (values == b.named()[name]).all(), name
