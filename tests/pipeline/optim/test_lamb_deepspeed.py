from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from pairwise import allowed, pairs
from zero_cases import (
    ADAMW,
    CONTROLS,
    COVER,
    OTHERS,
    RULES,
    VALUES,
    Case,
    listed,
)
from zero_runs import Outcome, run_cases

BOUND = 3e-7
"""Of a tensor's weights, relative to their norm, after every step of four; of trust ratios.
Measured: at most 1.7e-7 and 1.7e-7."""

ADAMW_BOUND = 5e-7
"""torch's fused AdamW; measured: 2.0e-7."""

TURNS = [replace(case, ranks=2 + number % 3) for number, case in enumerate(listed())]
"""The 43 configurations on 2, 3 and 4 ranks in turns; all on each in the slow tier."""

ALL = [*COVER, *TURNS, *OTHERS, *ADAMW, *CONTROLS]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """All cases, in one spawn a number of ranks: starting ranks costs more than any case."""
    found: dict[str, Outcome] = {}
    for ranks in sorted({case.ranks for case in ALL}):
        cases = [case for case in ALL if case.ranks == ranks]
        found |= run_cases(ranks, tmp_path_factory.mktemp(f"ranks_{ranks}"), cases)
    return found


def check(cases: Sequence[Case], outcomes: dict[str, Outcome]) -> None:
    for case in cases:
        outcome = outcomes[case.name]
        print(f"{outcome.weights:8.1e} {outcome.ratios:8.1e}  {case.name}")
    for case in cases:
        outcome = outcomes[case.name]
        assert outcome.weights <= BOUND, case.name
        assert outcome.ratios <= BOUND, case.name
        assert outcome.unused_stayed, case.name
        assert outcome.poison_discarded, case.name


def test_the_cover_has_every_pair_that_the_rules_allow() -> None:
    choices = [{name: getattr(case, name) for name in VALUES} for case in COVER]
    assert all(allowed(choice, RULES) for choice in choices)
    covered = set().union(*map(pairs, choices))
    names = list(VALUES)
    every = {
        frozenset([(a, x), (b, y)])
        for a, b in combinations(names, 2)
        for x in VALUES[a]
        for y in VALUES[b]
    }
    assert {pair for pair in every if allowed(dict(pair), RULES)} == covered
    impossible = sorted(str(sorted(map(str, pair))) for pair in every - covered)
    assert len(impossible) == 8, impossible


def test_every_pair_of_the_cover_is_exact(outcomes: dict[str, Outcome]) -> None:
    check(COVER, outcomes)


def test_the_43_configurations_are_exact(outcomes: dict[str, Outcome]) -> None:
    assert len(TURNS) == 43
    check(TURNS, outcomes)


def test_reloaded_aligned_and_partitioned_from_the_start_it_is_exact(
    outcomes: dict[str, Outcome],
) -> None:
    check(OTHERS, outcomes)


@pytest.mark.parametrize("case", ADAMW, ids=lambda case: case.name)
def test_adamw_of_bert_is_exact_on_two_ranks(outcomes: dict[str, Outcome], case: Case) -> None:
    assert outcomes[case.name].weights <= ADAMW_BOUND
    assert outcomes[case.name].poison_discarded


@pytest.mark.parametrize("case", CONTROLS, ids=lambda case: case.name)
def test_a_lamb_that_trusts_flat_tensors_is_caught(
    outcomes: dict[str, Outcome], case: Case
) -> None:
    assert outcomes[case.name].weights > 1e5 * BOUND  # measured: at least 0.29


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_the_43_configurations_are_exact_on_any_number_of_ranks(ranks: int, tmp_path: Path) -> None:
    cases = [replace(case, ranks=ranks) for case in listed()]
    check(cases, run_cases(ranks, tmp_path, cases))
