import copy
import math
import typing

import pytest
import torch
from lamb_reference import ReferenceLamb, relative_error
from torch import nn

from configs.schema import ConfigError, load
from pipeline.optim import Lamb, LambConfig, OptimizerConfig, build_optimizer, describe_groups
from pipeline.optim.lamb_rule import trust_ratio
from pipeline.optim.variants import VARIANTS, Preset

SHAPES = {
    "matrix": (37, 53),
    "long": (400, 701),  # several pieces and a rest
    "one": (1, 1),
    "block": (2, 512),  # exactly one block of squares
    "zero": (9, 4),
    "unused": (6, 5),
    "bias": (53,),
    "scalar": (1,),
    "empty": (0, 3),
    "zero_bias": (11,),
}


class Tensors(nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        for name, shape in SHAPES.items():
            value = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
            self.register_parameter(name, nn.Parameter(value * ("zero" not in name)))
        self.frozen = nn.Parameter(torch.ones(3, 3), requires_grad=False)


def gradients_of(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for tensor in model.parameters():
        tensor.grad = torch.randn(tensor.shape, generator=generator) * 10.0 ** -(step % 4)
    model.unused.grad.zero_()
    model.scalar.grad.mul_(step % 2)  # nothing in every other step


@pytest.mark.parametrize("preset", typing.get_args(Preset))
def test_every_preset_is_the_lamb_of_the_paper_in_fp64(preset: Preset) -> None:
    model = Tensors()
    start = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    optimizer = build_optimizer(LambConfig(kind="lamb", preset=preset), model)
    reference = ReferenceLamb({name: start[name] for name in SHAPES}, VARIANTS[preset])
    for step in range(8):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (step + 1)
        gradients_of(model, step)
        optimizer.step()
        reference.step({n: t.grad for n, t in model.named_parameters() if n in SHAPES}, group["lr"])
        assert optimizer.trust_ratios() == pytest.approx(reference.ratios, rel=1e-6)
    for name, expected in reference.weights.items():
        error = relative_error(model.get_parameter(name).detach(), expected)
        assert error < 5e-7, name  # measured: 1.2e-7
    assert torch.equal(model.unused, start["unused"])
    assert torch.equal(model.frozen, start["frozen"])


def test_the_presets_are_what_their_sources_do() -> None:
    rows = {p: (v.bias_correction, v.clamp, v.adapt_without_decay) for p, v in VARIANTS.items()}
    assert rows == {
        "google": (False, None, False),
        "paper": (True, None, True),
        "apex": (True, None, False),
        "nvlamb": (True, None, True),
        "deepspeed": (False, (0.01, 0.3), True),
    }


def test_a_preset_can_be_overridden_field_by_field() -> None:
    config = LambConfig(kind="lamb", preset="deepspeed", bias_correction=True, clamp=(0.1, 2.0))
    variant = config.variant
    assert (variant.bias_correction, variant.clamp, variant.adapt_without_decay) == (
        True,
        (0.1, 2.0),
        True,
    )


@pytest.mark.parametrize(("bias_correction", "size"), [(False, math.sqrt(10)), (True, 1.0)])
def test_the_first_update_is_a_sign_of_known_size(bias_correction: bool, size: float) -> None:
    tensor = nn.Parameter(torch.zeros(4, 5))  # a zero tensor has ratio 1, so it shows u itself
    optimizer = Lamb([tensor], lr=1.0, weight_decay=0.0, bias_correction=bias_correction)
    gradient = (torch.arange(20.0) - 9.5).sign().view(4, 5) * torch.linspace(1, 4, 20).view(4, 5)
    tensor.grad = gradient
    optimizer.step()
    expected = -size * gradient.sign()
    torch.testing.assert_close(tensor.detach(), expected, rtol=4e-5, atol=0)  # eps costs 3e-5


def test_an_adapted_tensor_moves_by_the_rate_times_its_norm_whatever_the_gradient_scale() -> None:
    moved = []
    for scale in (1e3, 1e6):
        torch.manual_seed(0)
        tensors = [nn.Parameter(torch.randn(17, 9)), nn.Parameter(torch.randn(40))]
        before = [tensor.detach().clone() for tensor in tensors]
        optimizer = Lamb(tensors, lr=0.01)
        for tensor in tensors:
            tensor.grad = torch.randn(tensor.shape) * scale
        optimizer.step()
        distances = [
            (t.detach() - b).norm() / b.norm() for t, b in zip(tensors, before, strict=True)
        ]
        assert sum(distances).item() == pytest.approx(0.02, rel=1e-5)
        moved.append(tensors[0].detach())
    torch.testing.assert_close(*moved, rtol=1e-5, atol=1e-6)


def test_the_trust_ratio_is_one_where_a_norm_is_zero_and_stays_within_its_clamp() -> None:
    norms = torch.tensor([[0.0, 2.0], [2.0, 0.0], [0.0, 2.0], [3.0, 2.0], [3.0, 2.0], [1.0, 200.0]])
    free, narrow = (0.0, math.inf), (0.01, 0.3)
    clamp = torch.tensor([free, free, narrow, free, narrow, narrow])
    assert trust_ratio(norms, clamp).tolist() == pytest.approx([1, 1, 1, 1.5, 0.3, 0.01])


def test_a_missing_gradient_counts_as_zero() -> None:
    used, unused = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3, 3))
    optimizer = Lamb([("used", used), ("unused", unused)], lr=0.1)
    used.grad = torch.ones(3, 3)
    optimizer.step()
    assert torch.equal(unused, torch.ones(3, 3))
    assert optimizer.tensor_steps() == {"used": 1, "unused": 0}
    assert list(optimizer.trust_ratios()) == list(optimizer.norms()) == ["used"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float) -> None:
    torch.manual_seed(0)
    tensors = [nn.Parameter(torch.randn(300, 400)), nn.Parameter(torch.randn(7))]
    optimizer = Lamb(tensors, lr=0.1, bias_correction=True)
    assert optimizer.applied
    for tensor in tensors:
        tensor.grad = torch.randn(tensor.shape)
    optimizer.step()
    before = copy.deepcopy([*tensors, optimizer.state_dict(), optimizer.tensor_steps()])
    tensors[0].grad[123, 45] = bad
    optimizer.step()
    assert not optimizer.applied
    assert optimizer.trust_ratios() == optimizer.norms() == {}
    after = [*tensors, optimizer.state_dict(), optimizer.tensor_steps()]
    assert all(torch.equal(a, b) for a, b in zip(before[:2], after[:2], strict=True))
    for old, new in zip(*(x[2]["state"].values() for x in (before, after)), strict=True):
        assert old["step"] == new["step"] == 1
        assert torch.equal(old["exp_avg"], new["exp_avg"])
        assert torch.equal(old["exp_avg_sq"], new["exp_avg_sq"])
    assert before[3] == after[3] == {"0.0": 1, "0.1": 1}
    tensors[0].grad[123, 45] = 1.0
    optimizer.step()
    assert optimizer.applied
    assert optimizer.tensor_steps() == {"0.0": 2, "0.1": 2}
    assert all(tensor.isfinite().all() for tensor in tensors)


def test_state_survives_saving_and_loading() -> None:
    models, optimizers = [], []
    for _ in range(2):
        models.append(Tensors())
        optimizers.append(build_optimizer(LambConfig(kind="lamb", preset="paper"), models[-1]))
        for group in optimizers[-1].param_groups:
            group["lr"] = 0.1
    for step in range(2):
        gradients_of(models[0], step)
        optimizers[0].step()
    models[1].load_state_dict(models[0].state_dict())
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    for model, optimizer in zip(models, optimizers, strict=True):
        gradients_of(model, 2)
        optimizer.step()
    for name in SHAPES:
        assert torch.equal(models[0].get_parameter(name), models[1].get_parameter(name)), name


def test_unknown_tensors_are_refused_unless_the_step_is_a_phantom() -> None:
    tensor, other = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = Lamb([tensor], lr=0.1)
    optimizer.param_groups[0]["params"] = [other]
    other.grad = torch.zeros(2, 2)
    optimizer.step()
    assert torch.equal(other, torch.ones(2, 2))
    assert not optimizer.state
    other.grad = torch.ones(2, 2)
    with pytest.raises(RuntimeError, match=r"optimizer\.bind\(engine\)"):
        optimizer.step()


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.ones(2, 2, dtype=torch.bfloat16), "fp32"),
        (torch.ones(2, 3).t(), "contiguous"),
    ],
)
def test_tensors_that_cannot_be_updated_exactly_are_refused(
    tensor: torch.Tensor, message: str
) -> None:
    parameter = nn.Parameter(tensor)
    parameter.grad = torch.ones_like(tensor)
    with pytest.raises(ValueError, match=message):
        Lamb([parameter], lr=0.1).step()


def test_groups_follow_the_shape_and_tied_tensors_come_once() -> None:
    model = nn.Module()
    model.embedding = nn.Embedding(7, 3)
    model.norm = nn.LayerNorm(3)
    model.decoder = nn.Linear(3, 7)
    model.decoder.weight = model.embedding.weight
    model.frozen = nn.Linear(2, 2).requires_grad_(False)
    config = LambConfig(kind="lamb", weight_decay=0.02)
    optimizer = build_optimizer(config, model)
    decaying, others = optimizer.param_groups
    assert [id(t) for t in decaying["params"]] == [id(model.embedding.weight)]
    assert (decaying["weight_decay"], decaying["adapt"]) == (0.02, True)
    assert (others["weight_decay"], others["adapt"]) == (0.0, False)
    rows = {
        row.name: (row.shape, row.decays, row.adapted) for row in describe_groups(config, model)
    }
    assert rows == {
        "embedding.weight": ((7, 3), True, True),
        "norm.weight": ((3,), False, False),
        "norm.bias": ((3,), False, False),
        "decoder.bias": ((7,), False, False),
    }


def test_a_model_without_trained_tensors_is_refused() -> None:
    with pytest.raises(ValueError, match="requires_grad"):
        build_optimizer(LambConfig(kind="lamb"), nn.Linear(2, 2).requires_grad_(False))


def test_the_section_of_a_recipe_is_decoded_strictly(tmp_path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("optimizer: {kind: lamb, preset: nvlamb, betas: [0.9, 0.98]}\n")
    config = load(recipe).decode("optimizer", OptimizerConfig)
    assert config == LambConfig(kind="lamb", preset="nvlamb", betas=(0.9, 0.98))
    recipe.write_text("optimizer: {kind: lamb, clamp: [0.3, 0.01]}\n")
    with pytest.raises(ConfigError, match="lowest, highest"):
        load(recipe).decode("optimizer", OptimizerConfig)
