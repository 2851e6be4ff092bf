import pytest
import torch
from torch import Tensor, nn

from pipeline.nn import products
from pipeline.nn.products import Linear, linear, outer, product

SHAPES = [(64, 32, 48), (7, 5, 300), (1, 1, 1), (130, 257, 129)]


@pytest.fixture(params=[True, False], ids=["onednn", "mkl"])
def library(request, monkeypatch) -> None:
    """Either library, at all sizes."""
    if request.param and not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this torch was built without oneDNN")
    monkeypatch.setattr(products, "ONEDNN_IS_FASTER", request.param)
    monkeypatch.setattr(products, "SMALLEST", 0)


def drawn(rows: int, inner: int, columns: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(rows)
    shapes = (rows, inner), (columns, inner), (columns,), (rows, columns)
    return tuple(torch.randn(shape, generator=generator).to(dtype) for shape in shapes)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("biased", [True, False])
def test_products_and_gradients_are_those_of_float64(library, shape, biased) -> None:
    results = []
    for dtype in (torch.float32, torch.float64):
        hidden, weight, bias, slope = drawn(*shape, dtype)
        leaves = [tensor.requires_grad_() for tensor in (hidden, weight, bias)]
        made = linear(hidden, weight, bias if biased else None)
        made.backward(slope)
        results.append([made.detach(), *(leaf.grad for leaf in leaves[: 2 + biased])])
    for given, exact in zip(*results, strict=True):
        error = (given - exact).abs().max() / exact.abs().max()
        assert error < 1e-6  # measured: 2.9e-7


def test_leading_axes_are_kept_and_transposed_gradients_taken(library) -> None:
    hidden, weight, bias, _ = drawn(24, 16, 8, torch.float32)
    hidden = hidden.view(2, 3, 4, 16).requires_grad_()
    layer = Linear(16, 8)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    made = layer(hidden)
    assert made.shape == (2, 3, 4, 8)
    slope = torch.randn(8, 4, 3, 2).permute(3, 2, 1, 0)
    made.backward(slope)
    expected = torch.einsum("abco,oi->abci", slope, weight)
    torch.testing.assert_close(hidden.grad, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        layer.weight.grad, torch.einsum("abco,abci->oi", slope, hidden), atol=2e-5, rtol=0
    )
    torch.testing.assert_close(layer.bias.grad, slope.sum((0, 1, 2)), atol=1e-5, rtol=0)


def test_only_what_needs_a_gradient_gets_one(library) -> None:
    hidden, weight, bias, slope = drawn(8, 4, 6, torch.float32)
    linear(hidden, weight, bias.requires_grad_()).backward(slope)
    assert (hidden.grad, weight.grad) == (None, None)
    torch.testing.assert_close(bias.grad, slope.sum(0))


def test_products_take_transposed_views(library) -> None:
    left, right, *_ = drawn(32, 16, 24, torch.float32)
    torch.testing.assert_close(product(left, right), left @ right.t(), atol=1e-5, rtol=0)
    columns = torch.randn(16, 24)
    torch.testing.assert_close(product(left, columns.t()), left @ columns, atol=1e-5, rtol=0)
    for wide in (8, 64):
        other = torch.randn(32, wide)
        torch.testing.assert_close(outer(left, other), left.t() @ other, atol=1e-5, rtol=0)


def test_other_precisions_go_the_usual_way(library) -> None:
    hidden, weight, bias, _ = drawn(8, 4, 6, torch.bfloat16)
    assert torch.equal(linear(hidden, weight, bias), nn.functional.linear(hidden, weight, bias))
    hidden, weight, bias, _ = drawn(8, 4, 6, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(hidden, weight, bias).dtype == torch.bfloat16


def test_the_layer_is_torchs_in_all_else() -> None:
    torch.manual_seed(0)
    ours = Linear(6, 4)
    torch.manual_seed(0)
    theirs = nn.Linear(6, 4)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert torch.equal(ours.weight, theirs.weight)
    hidden = torch.randn(3, 6)
    torch.testing.assert_close(ours(hidden), theirs(hidden))
