"""What saves memory changes no numbers: computing again, offload, parts from the start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_cases import EngineCase, decode, draw_batch, run_cases, train_step
from small_run import largest_difference
from torch import Tensor

from configs.schema import ConfigError
from pipeline.training.start import build_engine, build_task

AGAIN = "train.activation_checkpointing=true"  # as it was said before there was a choice
ADAMW = "optimizer={kind: adamw}"
STATES = "deepspeed.offload_optimizer=cpu"
PARAMETERS = "deepspeed.offload_parameters=cpu"
PARTS = "deepspeed.zero_init=true"
LOCAL = "train.engine=local"
SUB_GROUPS = "deepspeed.options.zero_optimization={sub_group_size: 2000}"


def stage(number: int) -> str:
    return f"deepspeed.zero_stage={number}"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """Two ranks. Stage 3 comes last: it replaces torch's linear function by one of its own."""
    cases = []
    for number in (0, 1, 2, 3):
        cases += [
            EngineCase(f"plain-{number}", (stage(number),)),
            EngineCase(f"again-{number}", (stage(number), AGAIN)),
        ]
        if number:
            cases += [
                EngineCase(f"lamb-{number}", (stage(number), STATES)),
                EngineCase(f"adamw-{number}", (stage(number), STATES, ADAMW)),
            ]
        if number == 2:
            cases.append(EngineCase("adamw", (stage(number), ADAMW)))
    cases += [
        EngineCase("lamb-parameters", (stage(3), STATES, PARAMETERS, SUB_GROUPS)),
        EngineCase("adamw-parameters", (stage(3), STATES, PARAMETERS, ADAMW)),
        EngineCase("parts", (stage(3), PARTS)),
        EngineCase("parts-again", (stage(3), PARTS, AGAIN, STATES, PARAMETERS)),
        EngineCase("parts-bf16", (stage(3), PARTS, "train.precision=bf16")),
        EngineCase("bf16", (stage(3), "train.precision=bf16")),
    ]
    return run_cases(tmp_path_factory.mktemp("memory"), cases, ranks=2)


def weights(outcome: Mapping[str, Any]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = outcome["trail"][-1]["weights"]
    return found


def same(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(ours[n].equal(theirs[n]) for n in ours)


def test_activations_computed_again_give_the_same_gradients(tmp_path: Path) -> None:
    """With dropout; and what is kept for the backward pass is less."""
    gradients: list[dict[str, Tensor]] = []
    kept: list[int] = []

    def collect() -> None:
        named = engine.task.named_parameters()
        gradients.append({name: tensor.grad.clone() for name, tensor in named})

    def keep(tensor: Tensor) -> Tensor:
        kept[-1] += tensor.nbytes
        return tensor

    for overrides in ((LOCAL,), (LOCAL, AGAIN)):
        engine = build_engine(decode(tmp_path, overrides))
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            engine.task(draw_batch(0), torch.ones(2))
        train_step(engine, 0, after=collect)

    assert same(*gradients)
    assert kept[1] < kept[0] / 4  # measured: 144 of 693 kB


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_activations_computed_again_change_no_bit_at_any_stage(outcomes: Any, number: int) -> None:
    kept, again = outcomes[f"plain-{number}"], outcomes[f"again-{number}"]

    assert same(weights(kept), weights(again))
    assert kept["norms"] == again["norms"]


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("optimizer", ["lamb", "adamw"])
def test_offloaded_states_agree_with_those_kept(outcomes: Any, optimizer: str, number: int) -> None:
    """Measured: at most 9.1e-7."""
    kept = outcomes["plain-1" if optimizer == "lamb" else "adamw"]

    assert largest_difference(weights(outcomes[f"{optimizer}-{number}"]), weights(kept)) <= 3e-6


@pytest.mark.parametrize("optimizer", ["lamb", "adamw"])
def test_offloaded_parameters_agree_with_those_kept(outcomes: Any, optimizer: str) -> None:
    kept = outcomes["plain-1" if optimizer == "lamb" else "adamw"]
    offloaded = outcomes[f"{optimizer}-parameters"]

    assert largest_difference(weights(offloaded), weights(kept)) <= 3e-6


def test_a_model_in_parts_begins_with_the_same_weights(outcomes: Any, tmp_path: Path) -> None:
    task = build_task(decode(tmp_path))
    alone = {name: tensor.detach() for name, tensor in task.model.named_parameters()}

    assert same(outcomes["parts"]["initial"], alone)
    assert same(outcomes["plain-3"]["initial"], alone)
    rounded = {name: tensor.bfloat16().float() for name, tensor in alone.items()}
    assert same(outcomes["parts-bf16"]["initial"], rounded)


def test_a_model_in_parts_trains_as_one_taken_apart_later(outcomes: Any) -> None:
    assert same(weights(outcomes["parts"]), weights(outcomes["plain-3"]))
    assert same(weights(outcomes["parts-bf16"]), weights(outcomes["bf16"]))
    assert largest_difference(weights(outcomes["parts-again"]), weights(outcomes["parts"])) <= 1e-5


@pytest.mark.parametrize("name", ["plain-2", "plain-3", "parts", "parts-again"])
def test_gathered_parameters_evaluate_as_at_stage_1(outcomes: Any, name: str) -> None:
    torch.testing.assert_close(
        outcomes[name]["statistics"], outcomes["plain-1"]["statistics"], rtol=1e-5, atol=0
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((stage(0), STATES), "offload_optimizer: stage 0 partitions no states"),
        ((stage(2), PARAMETERS), "offload_parameters: only stage 3"),
        ((stage(2), PARTS), "zero_init: only stage 3"),
        ((stage(3), "deepspeed.offload_optimizer=nvme"), "nvme trains wrongly .* use cpu"),
        ((stage(3), "deepspeed.offload_parameters=nvme"), "nvme trains wrongly .* use cpu"),
        (
            (stage(3), "deepspeed.options.zero_optimization={offload_param: {device: nvme}}"),
            "offload_param.device: set offload_parameters instead",
        ),
    ],
)
def test_what_cannot_be_kept_there_is_refused(
    tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        decode(tmp_path, overrides)
