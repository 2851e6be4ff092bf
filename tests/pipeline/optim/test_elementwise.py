"""Optimizers of libraries: under ZeRO on any number of ranks they do what they do alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lamb_reference import relative_error
from torch import Tensor, nn
from zero_ranks import run_ranks

from pipeline.optim import (
    AdafactorConfig,
    AdamWConfig,
    LionConfig,
    OptimizerConfig,
    build_optimizer,
)
from pipeline.optim.groups import DecayRule

STEPS = 6
ROWS = 12
BOUND = 1e-6
"""Of a tensor's weights after six steps, relative to their norm; measured: at most 9e-8."""

RULES = (DecayRule(match="words.*", decay=False),)
OPTIMIZERS: dict[str, OptimizerConfig] = {
    "adamw": AdamWConfig(kind="adamw", weight_decay=0.1, rules=RULES),
    "bert": AdamWConfig(kind="adamw", weight_decay=0.1, bias_correction=False, rules=RULES),
    "lion": LionConfig(kind="lion", rules=RULES),
    "adafactor": AdafactorConfig(kind="adafactor", weight_decay=0.1, rules=RULES),
}
CASES = [
    (name, stage)
    for name in OPTIMIZERS
    for stage in (0, 1, 2, 3)
    if name != "adafactor" or not stage
]


class Model(nn.Module):
    """Sizes that no number of ranks divides."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.words = nn.Embedding(29, 7)
        self.body = nn.Sequential(nn.Linear(7, 13), nn.Tanh(), nn.Linear(13, 29))

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.body(self.words(ids)), labels)


def batch(step: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, Tensor]:
    """A rank's share of the rows of a step."""
    generator = torch.Generator().manual_seed(step)
    ids, labels = torch.randint(0, 29, (2, ROWS), generator=generator)
    return ids[rank::world_size], labels[rank::world_size]


def rate(step: int) -> float:
    return 0.003 * (step + 1)


def alone(config: OptimizerConfig) -> dict[str, Tensor]:
    model = Model()
    optimizer = build_optimizer(config, model)
    for step in range(STEPS):
        model(*batch(step)).backward()
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.step()
        optimizer.zero_grad()
    return {name: tensor.detach() for name, tensor in model.named_parameters()}


def with_deepspeed(config: OptimizerConfig, stage: int) -> dict[str, Tensor]:
    import deepspeed

    model = Model()
    optimizer: Any = build_optimizer(config, model)
    options = {
        "train_micro_batch_size_per_gpu": ROWS // dist.get_world_size(),
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0},
    }
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, config=options, dist_init_required=False
    )
    optimizer.bind(engine)
    for step in range(STEPS):
        engine.backward(engine(*batch(step, dist.get_rank(), dist.get_world_size())))
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        engine.step()
        assert optimizer.applied
    found = {}
    for name, tensor in model.named_parameters():
        with deepspeed.zero.GatheredParameters([tensor], enabled=stage == 3):
            found[name] = tensor.detach().clone()
    engine.destroy()
    return found


def work(directory: Path) -> None:
    trained = {case: with_deepspeed(OPTIMIZERS[case[0]], case[1]) for case in CASES}
    if dist.get_rank() == 0:
        torch.save(trained, directory / "trained.pt")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], dict[str, Tensor]]:
    """All cases in one start of two ranks."""
    directory = tmp_path_factory.mktemp("elementwise")
    run_ranks(work, 2, directory)
    found: dict[tuple[str, int], dict[str, Tensor]] = torch.load(directory / "trained.pt")
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}, stage {case[1]}")
def test_two_ranks_do_what_one_process_does(
    trained: dict[tuple[str, int], dict[str, Tensor]], case: tuple[str, int]
) -> None:
    expected = alone(OPTIMIZERS[case[0]])
    errors = {name: relative_error(trained[case][name], expected[name]) for name in expected}
    assert max(errors.values()) < BOUND, errors
    moved = relative_error(expected["words.weight"], Model().words.weight.detach())
    assert moved > 1e4 * BOUND


def test_lion_is_its_paper_in_fp64() -> None:
    model = Model().double()
    config = LionConfig(kind="lion", betas=(0.9, 0.99), weight_decay=0.5)
    optimizer = build_optimizer(config, model)
    weights = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    moments = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for step in range(STEPS):
        model(*batch(step)).backward()
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        for name, tensor in model.named_parameters():
            assert tensor.grad is not None
            g, m, w = tensor.grad, moments[name], weights[name]
            decay = 0.5 if w.dim() > 1 else 0.0
            weights[name] = w - rate(step) * ((0.9 * m + 0.1 * g).sign() + decay * w)
            moments[name] = 0.99 * m + 0.01 * g
        optimizer.step()
        optimizer.zero_grad()
    for name, tensor in model.named_parameters():
        assert relative_error(tensor.detach(), weights[name]) < 1e-12, name


def test_adafactor_keeps_rows_and_columns_and_moves_by_a_share_of_the_weights() -> None:
    model = Model()
    optimizer = build_optimizer(AdafactorConfig(kind="adafactor"), model)
    before = model.words.weight.detach().clone()
    model.words.weight.grad = torch.randn(29, 7, generator=torch.Generator().manual_seed(0))
    model.body[0].bias.grad = torch.zeros(13)
    still = model.body[0].bias.detach().clone()
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    optimizer.step()
    state = optimizer.state[model.words.weight]
    assert (state["row_var"].shape, state["col_var"].shape) == ((29, 1), (1, 7))

    def rms(tensor: Tensor) -> float:
        return float(tensor.square().mean().sqrt())

    # Its update has a root mean square of 1 where it is clipped, as here, times rate and weights.
    step = rms(model.words.weight.detach() - before) / rms(before)
    assert step == pytest.approx(0.01, rel=1e-4)
    assert torch.equal(model.body[0].bias, still)  # eps squared is no zero in fp32: no 0 / 0
    zeros = optimizer.state[model.body[0].bias]["variance"]
    assert not zeros.any()


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    for config in OPTIMIZERS.values():
        model = Model()
        optimizer: Any = build_optimizer(config, model)
        before = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
        for group in optimizer.param_groups:
            group["lr"] = 0.1
        model(*batch(0)).backward()
        model.words.weight.grad[3, 2] = float("inf")
        optimizer.step()
        assert not optimizer.applied
        assert all(torch.equal(tensor, before[n]) for n, tensor in model.named_parameters())
        model.words.weight.grad[3, 2] = 0.0
        optimizer.step()
        assert optimizer.applied
        assert not torch.equal(model.words.weight, before["words.weight"])
