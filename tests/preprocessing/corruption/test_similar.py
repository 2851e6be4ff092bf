from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from schemes import (
    SPECIAL,
    apart,
    check_bounds,
    check_nothing,
    check_purity,
    check_static_is_dynamic,
    from_lists,
    restored,
)
from test_ngrams import runs_plainly
from wordly import (
    SMALL,
    VOCABULARY,
    check_chosen,
    check_plainly,
    draw,
    each,
    shown,
    within,
    worded,
)

from preprocessing.corruption import Context, Sequences, SimilarConfig
from preprocessing.corruption.base import ABSENT
from preprocessing.tables.cooccurrence import CooccurringSimilar
from preprocessing.tables.similar import GivenSimilar, similar_arrays

WORDS = GivenSimilar(kind="given", path=Path("words.tsv"))
SCHEME = SimilarConfig(kind="similar", words=WORDS)
WEIGHTS = (0.4, 0.3, 0.2, 0.1)
SIMILAR = {(one,): [(one + 1,), (one + 7,)] for one in range(5, 900)} | {
    (one, other): [(other, one)] for one in range(5, 60) for other in range(5, 60)
}
CONTEXT = Context(SPECIAL, similar_arrays(SIMILAR.items()))


def plainly(sequences: Sequences):
    parts = zip(each(sequences, "similar"), sequences.first_lengths.tolist(), strict=True)
    for (tokens, words, key), second in parts:
        tokens_left = min(len(tokens), int(np.ceil(len(tokens) * (0.15 * 1.5))))
        words_left = max(1, round(0.15 * len(words)))
        runs = runs_plainly(words, second, tokens_left, key, WEIGHTS, words_left)
        places = sorted(place for run in runs for place in run)
        now = list(tokens)
        for word in (word for word in words if word[0] in places):
            fate = draw(key, word[0], 1)
            others = SIMILAR.get(tuple(tokens[place] for place in word), [])
            if fate < 0.8 and others:
                other = others[int(draw(key, word[0], 4) * len(others))]
            elif fate < 0.9:
                other = tuple(int(draw(key, place, 2) * SPECIAL.size) for place in word)
            else:
                continue
            for place, piece in zip(word, other, strict=True):
                now[place] = piece
        yield now, places, [tokens[one] for one in places]


def ids(words: str) -> tuple[int, ...]:
    return tuple(VOCABULARY.index(piece) for piece in words.split())


def test_worked_example() -> None:
    pairs = [("man", "boy"), ("walk ##ed", "stroll ##ed"), ("store", "shop")]
    table = similar_arrays((ids(word), [ids(other)]) for word, other in pairs)
    scheme = SimilarConfig(kind="similar", words=WORDS, share=0.3)
    tokens, targets = shown(scheme, 114, Context(SMALL, table))
    expected = "[CLS] un ##aff ##able man [SEP] he stroll ##ed shop a store . [SEP]"
    assert tokens == expected.split()
    assert targets == [(7, "walk"), (8, "##ed"), (9, "to")]


@given(worded(80))
def test_equals_a_plain_loop(sequences: Sequences) -> None:
    check_plainly(SCHEME, sequences, plainly(sequences), CONTEXT)


@given(worded(), st.integers(0, 5), st.randoms(use_true_random=False))
def test_original_is_rebuilt_from_the_targets(sequences: Sequences, epoch: int, random) -> None:
    corrupted = SCHEME.corrupt(CONTEXT, sequences, seed=3, epoch=epoch)
    check_chosen(sequences, corrupted)
    check_bounds(SCHEME, CONTEXT, sequences, corrupted)
    assert (restored(corrupted) == sequences.tokens).all()
    counts = SCHEME.num_targets(sequences.lengths)
    for (_, words, _), own, count in zip(
        each(sequences, ""), apart(corrupted), counts, strict=True
    ):
        assert own["masked_lm places"] or all(len(word) > count for word in words)
    some = random.sample(range(len(counts)), random.randint(1, len(counts)))
    check_purity(SCHEME, CONTEXT, sequences, some)


def test_shortest_sequences() -> None:
    given = from_lists([[7], [2, 3], [2, 9, 3]], marks=[[1], [0] * 2, [0, 1, 0]])
    corrupted = SCHEME.corrupt(CONTEXT, given, seed=1, epoch=0)
    assert [own["masked_lm places"] for own in apart(corrupted)] == [[0], [], [1]]
    check_nothing(SCHEME, CONTEXT)


def test_a_table_without_words_makes_random_tokens() -> None:
    given = from_lists([list(range(10, 50))] * 500, marks=[[1] * 40] * 500)
    empty = Context(SPECIAL, similar_arrays([]))
    corrupted = SCHEME.corrupt(empty, given, seed=1, epoch=0)
    targets = corrupted.targets["masked_lm"]
    kept = (corrupted.inputs.tokens[targets.places] == targets.labels).mean()
    assert within(kept, 0.1 + 0.9 / SPECIAL.size, len(targets.places))


@pytest.mark.parametrize("length", [128, 512])
def test_a_million_real_tokens(prose, length: int) -> None:
    """15 % of the words; 80 % of those with a similar word become it, 10 % random, 10 % kept."""
    context, given = prose(length)
    size = context.special.size
    known = np.arange(5, size - 1)
    table = similar_arrays(((int(one),), [(int(one) + 1,)]) for one in known)
    corrupted = SCHEME.corrupt(Context(context.special, table), given, seed=1, epoch=0)
    check_chosen(given, corrupted, context.special)
    targets = corrupted.targets["masked_lm"]
    now, count = corrupted.inputs.tokens[targets.places], len(targets.places)
    reserved = [context.special.start, context.special.separator, ABSENT]

    plain = ~np.isin(given.tokens, reserved)
    begins = plain & ((given.marks & 1 == 1) | ~np.roll(plain, 1))
    words = begins.reshape(-1, length).sum(axis=1)
    chosen = np.bincount(targets.places[begins[targets.places]] // length, minlength=len(given.ids))
    wanted = np.maximum(1, np.rint(0.15 * words))
    assert (chosen <= wanted).all()
    assert (chosen == wanted).mean() > 0.99, "the bound on tokens hardly ever matters"
    assert abs(chosen.sum() / words.sum() - 0.15) < 0.002

    single = begins[targets.places] & ~(plain & ~begins)[(targets.places + 1) % len(plain)]
    single &= np.isin(targets.labels, known)
    hits, n = now[single] - targets.labels[single], int(single.sum())
    by_chance = 0.1 / size
    assert n > 0.5 * count
    assert within((hits == 1).mean(), 0.8 + by_chance, n)
    assert within((hits == 0).mean(), 0.1 + by_chance, n)
    masks = (corrupted.inputs.tokens == context.special.mask).mean()
    assert masks < 0.001, "[MASK] comes only as a random token"


def test_runs_have_a_mean_of_two_words(prose) -> None:
    context, given = prose(512)
    corrupted = SCHEME.corrupt(Context(context.special, similar_arrays([])), given, seed=1, epoch=0)
    chosen = np.zeros(len(given.tokens), dtype=bool)
    chosen[corrupted.targets["masked_lm"].places] = True
    lengths = []
    for own, (_, words, key) in zip(chosen.reshape(-1, 512), each(given, "similar"), strict=True):
        first = next(runs_plainly(words, 512, 512, key, WEIGHTS))
        assert own[first].all()
        lengths.append(sum(word[0] in first for word in words))
    counts = np.bincount(lengths, minlength=5)[1:] / len(lengths)
    for found, share in zip(counts, WEIGHTS, strict=True):
        assert within(found, share, len(lengths))
    assert abs(np.mean(lengths) - 2.0) < 4 / len(lengths) ** 0.5 + 0.02


def test_probabilities_and_contexts_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="must not exceed 1"):
        SimilarConfig(kind="similar", words=WORDS, random_probability=0.3)
    with pytest.raises(ValueError, match="contexts are words, too"):
        CooccurringSimilar(kind="cooccurring", num_words=10, num_contexts=20)


def test_static_copy_equals_dynamic_epoch(tmp_path: Path) -> None:
    (tmp_path / "words.tsv").write_text("ba\tdo\tka\nne\tre\n")
    for number, words in enumerate(
        (
            {"kind": "given", "path": str(tmp_path / "words.tsv")},
            {"kind": "cooccurring", "num_words": 50, "num_contexts": 20, "min_similarity": 0.0},
        )
    ):
        check_static_is_dynamic(tmp_path / str(number), {"kind": "similar", "words": words})
