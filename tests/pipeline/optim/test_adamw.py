import copy

import torch
from lamb_reference import relative_error
from torch import nn

from pipeline.optim import AdamW, AdamWConfig, BertAdamW, build_optimizer

SHAPES = {"matrix": (31, 17), "bias": (17,), "late": (5, 3)}


def model_of_shapes() -> nn.ParameterDict:
    generator = torch.Generator().manual_seed(0)
    return nn.ParameterDict(
        {name: nn.Parameter(torch.randn(s, generator=generator)) for name, s in SHAPES.items()}
    )


def test_without_bias_correction_it_is_the_optimizer_of_bert_in_fp64() -> None:
    model = model_of_shapes()
    weights = {name: tensor.detach().double() for name, tensor in model.items()}
    first = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    second = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    config = AdamWConfig(kind="adamw", bias_correction=False, weight_decay=0.1)
    optimizer = build_optimizer(config, model)
    assert isinstance(optimizer, BertAdamW)
    groups = optimizer.param_groups
    for step in range(20):
        lr = 0.01 * (20 - step) * (step > 0)  # the first rate is 0, as in a warm-up
        for group in groups:
            group["lr"] = lr
        for name, tensor in model.items():
            if name == "late" and step < 5:  # another count of steps within one group
                tensor.grad = None
                continue
            tensor.grad = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(step))
            g, w = tensor.grad.double(), weights[name]
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g * g
            update = first[name] / (second[name].sqrt() + 1e-6)
            weights[name] = w - lr * (update + (0.1 * w if w.dim() > 1 else 0))
        optimizer.step()
        assert optimizer.param_groups is groups
        assert [(group["lr"], group["weight_decay"]) for group in groups] == [(lr, 0.1), (lr, 0.0)]
    for name, expected in weights.items():
        assert relative_error(model[name].detach(), expected) < 1e-6, name  # measured: 1.5e-7


def test_state_is_that_of_adamw_and_survives_loading() -> None:
    models, optimizers = [model_of_shapes(), model_of_shapes()], []
    for model in models:
        config = AdamWConfig(kind="adamw", bias_correction=False)
        optimizers.append(build_optimizer(config, model))
        for group in optimizers[-1].param_groups:
            group["lr"] = 0.1

    def step(index: int, seed: int) -> None:
        for tensor in models[index].values():
            tensor.grad = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed))
        optimizers[index].step()

    step(0, seed=1)
    models[1].load_state_dict(models[0].state_dict())
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    step(0, seed=2)
    step(1, seed=2)
    assert set(optimizers[0].state[models[0]["bias"]]) == {"step", "exp_avg", "exp_avg_sq"}
    for name in SHAPES:
        assert torch.equal(models[0][name], models[1][name]), name


def test_with_bias_correction_it_is_torchs_own() -> None:
    ours, theirs = model_of_shapes(), model_of_shapes()
    optimizer = build_optimizer(AdamWConfig(kind="adamw"), ours)
    assert type(optimizer) is AdamW
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]
    groups = [
        {"params": [theirs["matrix"], theirs["late"]], "weight_decay": 0.01},
        {"params": [theirs["bias"]], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=0.1, eps=1e-6, fused=True)
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    for step in range(3):
        for name, tensor in ours.items():
            generator = torch.Generator().manual_seed(step)
            tensor.grad = torch.randn(tensor.shape, generator=generator)
            theirs[name].grad = tensor.grad.clone()
        optimizer.step()
        reference.step()
    assert all(torch.equal(ours[name], theirs[name]) for name in SHAPES)
