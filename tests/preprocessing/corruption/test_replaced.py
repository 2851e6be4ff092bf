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
    restored,
)
from wordly import check_chosen, check_plainly, draw, each, shown, within, worded

from preprocessing.corruption import ReplacedConfig, Sequences
from preprocessing.draws import bits

ELECTRA = ReplacedConfig(kind="replaced")
DISTINCT = ReplacedConfig(kind="replaced", picks="without_replacement")
DEBERTA = ReplacedConfig(kind="replaced", picks="windows", mask_share=1.0)
ALL = [ELECTRA, DISTINCT, DEBERTA]


def picked_plainly(scheme: ReplacedConfig, tokens, plain, key) -> list[int]:
    count = max(1, round(len(tokens) * 0.15))
    if not plain:
        return []
    if scheme.picks == "with_replacement":
        return sorted(plain[int(draw(key, turn, 0) * len(plain))] for turn in range(count))
    if scheme.picks == "without_replacement":
        return sorted(sorted(plain, key=lambda place: draw(key, place, 0))[:count])
    picks, offset = [], 0
    while offset < len(plain):
        room = min(6, len(plain) - offset)
        picks.append(plain[offset + int(draw(key, len(picks), 0) * room)])
        offset += room
    return picks[:count]


def plainly(scheme: ReplacedConfig, sequences: Sequences):
    for tokens, words, key in each(sequences, "replaced"):
        places = picked_plainly(scheme, tokens, [place for word in words for place in word], key)
        now = list(tokens)
        for place in places:
            if draw(key, place, 1) < scheme.mask_share:
                now[place] = SPECIAL.mask
        yield now, places, [tokens[one] for one in places]


def test_worked_example() -> None:
    tokens, targets = shown(ELECTRA, 31)
    expected = "[CLS] un [MASK] ##able man [SEP] he walk ##ed to a store . [SEP]"
    assert tokens == expected.split()
    assert targets == [(2, "##aff"), (11, "store")]
    _, targets = shown(ELECTRA, 12)
    assert targets == [(4, "man"), (4, "man")], "a place that is picked twice is two targets"


@pytest.mark.parametrize("scheme", ALL)
@given(sequences=worded(80))
def test_equals_a_plain_loop(scheme: ReplacedConfig, sequences: Sequences) -> None:
    check_plainly(scheme, sequences, plainly(scheme, sequences))


@pytest.mark.parametrize("scheme", ALL)
@given(sequences=worded(), epoch=st.integers(0, 5), random=st.randoms(use_true_random=False))
def test_original_is_rebuilt_from_the_targets(
    scheme: ReplacedConfig, sequences: Sequences, epoch: int, random
) -> None:
    corrupted = scheme.corrupt(CONTEXT, sequences, seed=3, epoch=epoch)
    check_chosen(sequences, corrupted)
    check_bounds(scheme, CONTEXT, sequences, corrupted)
    assert (restored(corrupted) == sequences.tokens).all()
    for (_, words, _), own in zip(each(sequences, ""), apart(corrupted), strict=True):
        assert bool(own["masked_lm places"]) == bool(words)
        assert own["replaced_tokens places"] == list(range(len(own["tokens"])))
        assert set(own["replaced_tokens labels"]) == {0}
    some = random.sample(range(len(sequences.ids)), random.randint(1, len(sequences.ids)))
    check_purity(scheme, CONTEXT, sequences, some)


@pytest.mark.parametrize("scheme", ALL)
def test_shortest_sequences(scheme: ReplacedConfig) -> None:
    given = from_lists([[7], [2, 3], [2, 9, 3]])
    corrupted = scheme.corrupt(CONTEXT, given, seed=1, epoch=0)
    assert [own["masked_lm places"] for own in apart(corrupted)] == [[0], [], [1]]
    check_nothing(scheme, CONTEXT)


@given(worded(), st.integers(0, 3))
def test_every_pick_has_a_uniform_of_its_place(sequences: Sequences, epoch: int) -> None:
    corrupted = ELECTRA.corrupt(CONTEXT, sequences, seed=3, epoch=epoch)
    uniforms = corrupted.targets["masked_lm"].extra["uniform"]
    assert uniforms.dtype == np.float32
    keys = sequences.keys(3, "replaced", epoch)
    expected = [
        float(bits(key, int(place), 2) >> np.uint64(40)) / 2**24
        for key, own in zip(keys, apart(corrupted), strict=True)
        for place in own["masked_lm places"]
    ]
    assert uniforms.tolist() == expected
    assert all(0 <= one < 1 for one in expected)


@pytest.mark.parametrize(("length", "count", "distinct"), [(128, 19, 17.7), (512, 77, 71.5)])
def test_a_million_real_tokens(prose, length: int, count: int, distinct: float) -> None:
    context, given = prose(length)
    rows = len(given.ids)
    for scheme in ALL:
        corrupted = scheme.corrupt(context, given, seed=1, epoch=0)
        targets = corrupted.targets["masked_lm"]
        assert (np.bincount(targets.places // length, minlength=rows) == count).all()
        check_chosen(given, corrupted, context.special)
        places = np.unique(targets.places)
        masked = (corrupted.inputs.tokens[places] == context.special.mask).mean()
        if scheme is ELECTRA:
            # n draws of m places leave each untouched with (1 - 1 / m) ** n.
            inside = length - 2
            expected = inside * (1 - (1 - 1 / inside) ** count)
            assert abs(expected - distinct) < 0.06
            assert abs(len(places) / rows - expected) < 4 * (count * 0.1 / rows) ** 0.5
        else:
            assert len(places) == len(targets.places)
        if scheme is DEBERTA:
            assert masked == 1
        else:
            assert within(masked, 0.85, len(places))
        # Nothing became a random token.
        now = corrupted.inputs.tokens
        assert ((now == given.tokens) | (now == context.special.mask)).all()
        uniforms = targets.extra["uniform"]
        assert abs(uniforms.mean() - 0.5) < 4 * (1 / 12 / len(uniforms)) ** 0.5 + 1e-4
        assert len(corrupted.targets["replaced_tokens"].places) == len(given.tokens)


@pytest.mark.parametrize("picks", ["with_replacement", "windows"])
def test_static_copy_equals_dynamic_epoch(tmp_path: Path, picks: str) -> None:
    arrays = check_static_is_dynamic(tmp_path, {"kind": "replaced", "picks": picks})
    assert any(name.endswith("extra/uniform") for name in arrays)
