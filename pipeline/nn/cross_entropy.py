"""Cross-entropy over a vocabulary without ever holding all scores: product and loss in one.

The scores of all targets of a BERT-base's micro-batch over 30,522 classes are its largest tensors
(4,928 targets of 64 rows of 512: 600 MB in fp32, and as much again for their softmax and for their
gradient). Here they exist for a few targets at a time. The gradients of hidden states, table and
bias are summed in the same pass, since a summed loss scales them all alike, so nothing is computed
twice.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd import Function

_CHUNK_BYTES = {"cpu": 2**23, "cuda": 2**26}
"""Of scores in fp32 that exist at a time: what a cache holds; what keeps a GPU busy."""
_MULTIPLE = {"cpu": 1, "cuda": 64}
"""Of the classes in a product: tensor cores want rows of whole 128 bytes."""


class Summed(NamedTuple):
    """Sums over targets.

    Attributes:
        total: cross-entropy in nats, fp32 at least, differentiable.
        correct: targets whose highest score is the right one.
    """

    total: Float[Tensor, ""]
    correct: Float[Tensor, ""]


def linear(
    hidden: Float[Tensor, "targets width"],
    weight: Float[Tensor, "classes width"],
    bias: Float[Tensor, " classes"],
    *,
    multiple: int | None = None,
) -> Float[Tensor, "targets classes"]:
    """All scores, ``hidden weight^T + bias``.

    Args:
        multiple: of the classes in the product, which is filled up with classes nobody asks for;
            left out, what suits the device.
    """
    return F.linear(hidden, *_padded(weight, bias, multiple))[:, : len(weight)]


def linear_cross_entropy(
    hidden: Float[Tensor, "targets width"],
    weight: Float[Tensor, "classes width"],
    bias: Float[Tensor, " classes"],
    labels: Int[Tensor, " targets"],
    *,
    silent: Bool[Tensor, ""] | None = None,
    multiple: int | None = None,
    chunk: int | None = None,
) -> Summed:
    """The summed cross-entropy of ``hidden weight^T + bias``.

    Products are in the precision of autocast, or of what is given; softmax, loss and the sums of
    gradients are in fp32 at least. Targets with a negative label add exactly nothing.

    Args:
        silent: where true, all gradients are exactly zero, even if the loss is not finite.
        multiple: see :func:`linear`.
        chunk: targets at a time; left out, what suits the device.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        lower = torch.get_autocast_dtype(device)
        hidden, weight, bias = hidden.to(lower), weight.to(lower), bias.to(lower)
    if chunk is None:
        chunk = max(1, _CHUNK_BYTES.get(device, 2**26) // (4 * len(weight)))
    weight, bias = _padded(weight, bias, multiple)
    needed = torch.is_grad_enabled() and any(t.requires_grad for t in (hidden, weight, bias))
    total, correct = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, labels, silent, chunk, needed
    )
    return Summed(total, correct)


class _LinearCrossEntropy(Function):
    """Gradients are summed while the scores of a chunk are there."""

    @staticmethod
    def forward(
        context: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        labels: Tensor,
        silent: Tensor | None,
        chunk: int,
        needed: bool,
    ) -> tuple[Tensor, Tensor]:
        """The sums, and the gradients of the total."""
        with torch.autocast(hidden.device.type, enabled=False):
            sums, gradients = _pass(hidden, weight, bias, labels, chunk, needed)
        if needed:
            context.dtypes = hidden.dtype, weight.dtype, bias.dtype
            context.save_for_backward(*gradients, silent)
        context.mark_non_differentiable(sums.correct)
        return sums

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the total, scaled."""
        *own, silent = context.saved_tensors
        scaled = [sums * gradients[0] for sums in own]
        if silent is not None:
            scaled = [one.masked_fill_(silent, 0) for one in scaled]
        cast = [one.to(dtype) for one, dtype in zip(scaled, context.dtypes, strict=True)]
        return *cast, None, None, None, None


def _pass(
    hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, chunk: int, needed: bool
) -> tuple[Summed, list[Tensor]]:
    """The sums over all targets, chunk by chunk, and the gradients where they are needed."""
    exact = torch.promote_types(hidden.dtype, torch.float32)
    total, correct = hidden.new_zeros(2, dtype=exact).unbind()
    of_hidden, of_weight, of_bias = gradients = (
        [torch.zeros_like(tensor, dtype=exact) for tensor in (hidden, weight, bias)]
        if needed
        else [hidden.new_empty(0)] * 3
    )
    for begin in range(0, len(hidden), chunk):
        part = slice(begin, begin + chunk)
        counts = labels[part] >= 0
        real = counts.to(exact)
        # A target that does not count has neither gradient nor, through the table's, any trace.
        seen = hidden[part].masked_fill(~counts.unsqueeze(-1), 0)
        scores = torch.addmm(bias, seen, weight.t()).to(exact)
        highest, best = scores.max(-1)
        places = labels[part].clamp(min=0).unsqueeze(-1)
        right = scores.gather(1, places).squeeze(-1)
        probabilities = scores.softmax(-1)
        # From the largest probability, which never vanishes as the right one's may.
        log_sum = highest - probabilities.gather(1, best.unsqueeze(-1)).squeeze(-1).log()
        total += ((log_sum - right) * real).sum()
        correct += ((best == labels[part]) * real).sum()
        if not needed:
            continue
        probabilities.scatter_add_(1, places, -torch.ones_like(real).unsqueeze(-1))
        of_bias += real @ probabilities
        slopes = probabilities.to(hidden.dtype)
        torch.mul(slopes @ weight, real.unsqueeze(-1), out=of_hidden[part])
        if of_weight.dtype == slopes.dtype:
            of_weight.addmm_(slopes.t(), seen)
        else:  # sums of chunks in fp32
            of_weight += slopes.t() @ seen
    return Summed(total, correct), gradients


def _padded(weight: Tensor, bias: Tensor, multiple: int | None) -> tuple[Tensor, Tensor]:
    """Table and bias with classes of no probability up to a multiple."""
    if multiple is None:
        multiple = _MULTIPLE.get(weight.device.type, 1)
    missing = -len(weight) % multiple
    if not missing:
        return weight, bias
    return F.pad(weight, (0, 0, 0, missing)), F.pad(bias, (0, missing), value=float("-inf"))
