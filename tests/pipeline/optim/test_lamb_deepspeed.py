from pathlib import Path

import pytest
from zero_cases import ADAMW_CASES, CASES, CONTROLS, Case, Outcome, run_cases

BOUND = 1e-6
"""Of a tensor's weights, relative to their norm, after four steps; measured: at most 3e-7."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """All cases in one spawn of two ranks: starting ranks costs more than any case."""
    directory = tmp_path_factory.mktemp("two_ranks")
    return run_cases(2, directory, [*CASES, *ADAMW_CASES, *CONTROLS])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_lamb_is_exact_on_two_ranks(outcomes: dict[str, Outcome], case: Case) -> None:
    outcome = outcomes[case.name]
    assert outcome.weights < BOUND
    assert outcome.ratios < BOUND
    assert not outcome.unused_moved


@pytest.mark.parametrize("case", ADAMW_CASES, ids=lambda case: case.name)
def test_adamw_of_bert_is_exact_on_two_ranks(outcomes: dict[str, Outcome], case: Case) -> None:
    assert outcomes[case.name].weights < BOUND


@pytest.mark.parametrize("case", CONTROLS, ids=lambda case: case.name)
def test_a_lamb_that_trusts_flat_tensors_is_caught(
    outcomes: dict[str, Outcome], case: Case
) -> None:
    assert outcomes[case.name].weights > 1e4 * BOUND  # measured: at least 0.5


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 3, 4])
def test_lamb_is_exact_on_any_number_of_ranks(world_size: int, tmp_path: Path) -> None:
    outcomes = run_cases(world_size, tmp_path, CASES)
    for name, outcome in outcomes.items():
        assert outcome.weights < BOUND, name
        assert outcome.ratios < BOUND, name
        assert not outcome.unused_moved, name
