"""Matrix products by the faster of the libraries that torch carries.

In fp32 on a CPU torch multiplies by Intel's MKL, which leaves the widest instructions of other
makers' processors alone. oneDNN, which torch uses for everything but plain products, does not:
on AMD EPYC (Zen 4) it does 210 GFLOP/s a core where MKL does 95, forward and backward. What torch
offers of it is made for inference, so the backward pass is written here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

SMALLEST = 2**21
"""Multiplications from which on a product is worth oneDNN's fixed cost of some microseconds."""


def _onednn_is_faster() -> bool:
    """Whether this is a processor with wide instructions that MKL does not use."""
    try:
        processor = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    known = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return known and wide and "AuthenticAMD" in processor


ONEDNN_IS_FASTER = _onednn_is_faster()


class Linear(nn.Linear):
    """torch's, by :func:`linear`."""

    def forward(self, hidden: Float[Tensor, "... inputs"]) -> Float[Tensor, "... outputs"]:
        """``hidden weight^T + bias``."""
        return linear(hidden, self.weight, self.bias)


def linear(
    hidden: Float[Tensor, "... inputs"],
    weight: Float[Tensor, "outputs inputs"],
    bias: Float[Tensor, " outputs"] | None = None,
) -> Float[Tensor, "... outputs"]:
    """``hidden weight^T + bias``, differentiable once."""
    if not _suits(hidden, weight):
        return F.linear(hidden, weight, bias)
    made: Tensor = _Linear.apply(hidden, weight, bias)  # type: ignore[no-untyped-call]
    return made


def product(
    left: Float[Tensor, "rows inner"],
    right: Float[Tensor, "columns inner"],
    bias: Float[Tensor, " columns"] | None = None,
) -> Float[Tensor, "rows columns"]:
    """``left right^T + bias``, without gradients; either may be a transposed view."""
    if not _suits(left, right):
        return F.linear(left, right, bias)
    made: Tensor = torch.ops.lexmill.product(left, right, bias)
    return made


def outer(
    left: Float[Tensor, "inner rows"], right: Float[Tensor, "inner columns"]
) -> Float[Tensor, "rows columns"]:
    """``left^T right``, without gradients."""
    # oneDNN's first operand is copied where it is transposed: the narrower one is.
    if left.device.type != "cpu" or left.shape[1] <= right.shape[1]:
        return product(left.t(), right.t())
    return product(right.t(), left.t()).t()


class _Linear(Function):
    """All three products by oneDNN."""

    @staticmethod
    def forward(context: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The product."""
        context.save_for_backward(hidden, weight)
        context.has_bias = bias is not None
        made: Tensor = torch.ops.lexmill.product(hidden, weight, bias)
        return made

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of what needs one."""
        hidden, weight = context.saved_tensors
        of_hidden, of_weight, of_bias = context.needs_input_grad
        flat = gradient.reshape(-1, gradient.shape[-1])
        return (
            product(flat, weight.t()).view(hidden.shape) if of_hidden else None,
            outer(flat, hidden.reshape(-1, hidden.shape[-1])) if of_weight else None,
            flat.sum(0) if of_bias and context.has_bias else None,
        )


# An operator of its own, so that compiled code calls it as it stands.
torch.library.define("lexmill::product", "(Tensor left, Tensor right, Tensor? bias) -> Tensor")


@torch.library.impl("lexmill::product", "CPU")
def _by_onednn(left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    made: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
    return made


@torch.library.register_fake("lexmill::product")  # type: ignore[untyped-decorator]
def _shaped(left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    return left.new_empty(*left.shape[:-1], len(right))


@register_flop_formula(torch.ops.lexmill.product)
def _flops(left: Sequence[int], right: Sequence[int], *_: object, **__: object) -> int:
    return 2 * math.prod(left) * right[0]


def _suits(left: Tensor, right: Tensor) -> bool:
    """Whether oneDNN does this product faster."""
    return (
        left.dtype == right.dtype == torch.float32
        and left.device.type == "cpu"
        and left.numel() * right.shape[0] >= SMALLEST
        and ONEDNN_IS_FASTER
        and not torch.is_autocast_enabled("cpu")
    )
