"""Steps that leave an objective out: what only it trains stays as it is, to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from engine_cases import EngineCase, decode, run_case, run_cases
from small_run import largest_difference

MIXED = "objectives=[{kind: masked_lm}, {kind: next_sentence, probability: 0.5}]"
LEFT_OUT = (0, 2, 3)
STEPS = 5
CLIPPED = "train.gradient_clipping=0.3"
PAPER = "optimizer={kind: lamb, preset: paper}"
HEAD = "heads.next_sentence."
BOUND = 1e-5


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """The local engine, and two ranks at every stage; with bias correction, which counts steps."""
    root = tmp_path_factory.mktemp("mixed")
    common = (MIXED, CLIPPED, PAPER)

    def case(name: str, *overrides: str) -> EngineCase:
        return EngineCase(name, (*common, *overrides), left_out=LEFT_OUT, steps=STEPS)

    local = case("local", "train.engine=local")
    stages = [case(f"stage-{number}", f"deepspeed.zero_stage={number}") for number in (0, 1, 2, 3)]
    return {
        "local": run_case(local, decode(root, local.overrides)),
        **run_cases(root, stages, ranks=2),
    }


@pytest.mark.parametrize("name", ["local", "stage-0", "stage-1", "stage-2", "stage-3"])
def test_steps_without_an_objective_leave_its_head_as_it_is(outcomes: Any, name: str) -> None:
    outcome = outcomes[name]
    trail = [{"weights": outcome["initial"], "counts": {}}, *outcome["trail"]]
    for step in range(STEPS):
        before, after = trail[step], trail[step + 1]
        for tensor, weight in after["weights"].items():
            moved = not weight.equal(before["weights"][tensor])
            assert moved == (step not in LEFT_OUT or not tensor.startswith(HEAD)), (step, tensor)
            if step in LEFT_OUT and step > 0 and tensor.startswith(HEAD):
                for state in ("exp_avg", "exp_avg_sq"):
                    key = f"{tensor}/{state}"
                    assert after["moments"][key].equal(before["moments"][key]), (step, key)
    assert any(key.startswith(f"{HEAD}pooler") for key in trail[0]["weights"])


@pytest.mark.parametrize("name", ["local", "stage-0", "stage-1", "stage-2", "stage-3"])
def test_steps_without_an_objective_are_not_counted_for_its_head(outcomes: Any, name: str) -> None:
    for step, found in enumerate(outcomes[name]["trail"]):
        assert found["counts"].keys() == found["weights"].keys()
        head = sum(earlier not in LEFT_OUT for earlier in range(step + 1))
        for tensor, count in found["counts"].items():
            assert count == (head if tensor.startswith(HEAD) else step + 1), (step, tensor)


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_mixed_steps_agree_with_the_local_engine(outcomes: Any, number: int) -> None:
    trained, reference = outcomes[f"stage-{number}"], outcomes["local"]

    assert (
        largest_difference(trained["trail"][-1]["weights"], reference["trail"][-1]["weights"])
        <= BOUND
    )
    assert trained["norms"] == pytest.approx(reference["norms"], rel=1e-5)


def test_a_left_out_objective_adds_nothing_to_the_others_gradient(tmp_path: Path) -> None:
    """Steps of masked_lm alone, in a model without the other head, give the same trunk."""
    common = ("train.engine=local",)
    mixed = EngineCase("mixed", (MIXED, *common), left_out=(0, 1, 2))
    alone = EngineCase(
        "alone", ("objectives=[{kind: masked_lm}]", "model.next_sentence=false", *common)
    )
    with_head = run_case(mixed, decode(tmp_path, mixed.overrides))["trail"][-1]["weights"]
    without = run_case(alone, decode(tmp_path, alone.overrides))["trail"][-1]["weights"]

    assert without.keys() < with_head.keys()
    assert all(with_head[name].equal(without[name]) for name in without)
