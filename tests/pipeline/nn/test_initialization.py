import pytest
import torch
from torch import nn

from pipeline.nn.initialization import initialize


def test_weights_are_normal_and_cut_at_two_deviations() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": nn.Linear(512, 512), "b": nn.Embedding(512, 512)})
    initialize(model, 0.02)
    for module in model.values():
        weight = module.weight
        assert weight.abs().max() <= 0.04
        # The truncated normal has 0.8796 of the deviation; 262144 draws know it to 0.1%.
        assert weight.std().item() == pytest.approx(0.8796 * 0.02, rel=0.005)
        assert weight.mean().item() == pytest.approx(0.0, abs=2e-4)


def test_biases_are_zero_and_norms_do_nothing() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)
    initialize(model, 0.02)
    linear, norm = model[0], model[1]
    assert (linear.bias == 0).all()
    assert (norm.weight == 1).all()
    assert (norm.bias == 0).all()
