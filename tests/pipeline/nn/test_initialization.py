from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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


def test_weights_follow_from_the_seed_whatever_was_drawn_since() -> None:
    def drawn(between: int) -> torch.Tensor:
        torch.manual_seed(5)
        torch.rand(between)
        model = nn.Linear(8, 8)
        initialize(model, 0.02)
        return model.weight.detach()

    assert torch.equal(drawn(0), drawn(17))
    torch.manual_seed(6)
    other = nn.Linear(8, 8)
    initialize(other, 0.02)
    assert not torch.equal(drawn(0), other.weight)


def test_tensors_in_parts_are_whole_while_they_are_written_to() -> None:
    """What is kept elsewhere lies in ``model`` only within the context, one module at a time."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    kept = {tensor: torch.empty(tensor.shape) for tensor in model.parameters()}
    for tensor in kept:
        tensor.data = torch.empty(0)
    most = 0

    @contextmanager
    def whole(tensors: Sequence[nn.Parameter]) -> Iterator[None]:
        nonlocal most
        for tensor in tensors:
            tensor.data = kept[tensor]
        most = max(most, sum(tensor.numel() for tensor in kept))
        yield
        for tensor in tensors:
            tensor.data = torch.empty(0)

    torch.manual_seed(0)
    initialize(model, 0.02, whole=whole)
    alone = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    torch.manual_seed(0)
    initialize(alone, 0.02)
    assert most == 16
    for own, part in zip(alone.parameters(), kept.values(), strict=True):
        assert torch.equal(own, part)
