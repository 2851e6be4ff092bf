import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from pipeline.nn import products
from pipeline.nn.activations import activation
from pipeline.nn.feed_forward import FeedForward


@pytest.fixture(params=[True, False], ids=["onednn", "mkl"])
def layer(request, monkeypatch) -> FeedForward:
    if request.param and not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this torch was built without oneDNN")
    monkeypatch.setattr(products, "ONEDNN_IS_FASTER", request.param)
    monkeypatch.setattr(products, "SMALLEST", 0)
    torch.manual_seed(0)
    return FeedForward(8, 32, activation("gelu"))


def gradients(layer: FeedForward, hidden: Tensor) -> list[Tensor]:
    hidden = hidden.clone().requires_grad_()
    layer.zero_grad()
    layer(hidden).square().sum().backward()
    assert hidden.grad is not None
    return [hidden.grad, *(p.grad.clone() for p in layer.parameters())]


def test_thrift_changes_no_gradient(layer: FeedForward) -> None:
    hidden = torch.randn(2, 3, 8)
    usual = gradients(layer, hidden)
    layer.thrifty = True
    for given, expected in zip(gradients(layer, hidden), usual, strict=True):
        assert torch.equal(given, expected)


def test_thrift_computes_the_activation_again_and_no_product(layer: FeedForward) -> None:
    calls = []
    layer.activation = lambda up: calls.append("activation") or torch.nn.functional.gelu(up)
    layer.down.register_forward_hook(lambda *_: calls.append("product"))
    layer.thrifty = True
    loss = layer(torch.randn(2, 3, 8)).sum()
    assert calls == ["activation", "product"]
    loss.backward()
    assert calls == ["activation", "product", "activation"]


@pytest.mark.parametrize("compiled", [False, True])
def test_thrift_keeps_one_wide_tensor_less(layer: FeedForward, compiled: bool) -> None:
    def kept() -> int:
        torch._dynamo.reset()
        called = (
            torch.compile(layer, backend="aot_eager_decomp_partition", fullgraph=True)
            if compiled
            else layer
        )
        wide = set()

        def look(tensor: Tensor) -> Tensor:
            if tensor.numel() == 2 * 3 * 32:
                wide.add(tensor.data_ptr())
            return tensor

        hidden = torch.randn(2, 3, 8, requires_grad=True)
        with saved_tensors_hooks(look, lambda tensor: tensor):
            output = called(hidden)
        output.sum().backward()
        assert hidden.grad is not None
        return len(wide)

    assert kept() == 2
    layer.thrifty = True
    assert kept() == 1
