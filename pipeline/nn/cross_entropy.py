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
from torch.autograd.function import once_differentiable

from pipeline.batch import IGNORED
from pipeline.nn.products import linear, outer, product

_CHUNK_BYTES = {"cpu": 2**25, "cuda": 2**26}
"""Of one tensor of scores in fp32; two or three exist at a time. Products of less have too few rows
to be fast: on a CPU 2**23 takes 1.5 times as long."""
_ROWS = 128
"""Chunks are of a multiple of so many targets, as GPUs cut their products."""
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


def all_scores(
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
    return linear(hidden, *_padded(weight, bias, multiple))[:, : len(weight)]


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
    gradients are in fp32 at least. Targets labelled ``IGNORED`` add exactly nothing; a label that
    is no class fails, as an index that is out of bounds does.

    Args:
        silent: where true, all gradients are exactly zero, even if the loss is not finite.
        multiple: see :func:`all_scores`.
        chunk: targets at a time; left out, as many as have 32 MiB of scores, on GPUs 64.
    """
    device, classes = hidden.device.type, len(weight)
    if chunk is None:
        chunk = max(1, _CHUNK_BYTES.get(device, 2**26) // (4 * classes))
        chunk -= chunk % _ROWS if chunk > _ROWS else 0
    given = hidden, weight, bias
    needed = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
    if torch.is_autocast_enabled(device):
        lower = torch.get_autocast_dtype(device)
        hidden, weight, bias = hidden.to(lower), weight.to(lower), bias.to(lower)
    with torch.no_grad(), torch.autocast(device, enabled=False):
        weight, bias = _padded(weight, bias, multiple)
        sums, gradients = _pass(hidden, weight, bias, labels, classes, chunk, needed)
    if not needed:
        return sums
    total = _WithGradients.apply(sums.total, gradients, silent, *given)  # type: ignore[no-untyped-call]
    return Summed(total, sums.correct)


class _WithGradients(Function):
    """A sum whose gradients are known. From fp32 they go to the precision of what is trained."""

    @staticmethod
    def forward(
        context: Any, total: Tensor, gradients: list[Tensor], silent: Tensor | None, *given: Tensor
    ) -> Tensor:
        """The sum."""
        context.dtypes = [tensor.dtype for tensor in given]
        context.save_for_backward(silent, *gradients)
        return total.clone()

    @staticmethod
    @once_differentiable
    def backward(context: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the sum, scaled."""
        silent, *gradients = context.saved_tensors
        for gradient in gradients:  # in place: they are large, and nobody else's
            gradient.mul_(slope)
            if silent is not None:
                gradient.masked_fill_(silent, 0)
        cast = [one.to(dtype) for one, dtype in zip(gradients, context.dtypes, strict=True)]
        return None, None, None, *cast


def _pass(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    labels: Tensor,
    classes: int,
    chunk: int,
    needed: bool,
) -> tuple[Summed, list[Tensor]]:
    """The sums over all targets, chunk by chunk, and the gradients where they are needed.

    Args:
        classes: that are real, the first ones.
    """
    exact = torch.promote_types(hidden.dtype, torch.float32)
    total, correct = hidden.new_zeros((), dtype=exact), hidden.new_zeros((), dtype=exact)
    of_hidden, of_bias = (
        tensor.new_zeros(tensor.shape if needed else 0, dtype=exact) for tensor in (hidden, bias)
    )
    of_weight = None
    for begin in range(0, len(hidden), chunk):
        part = slice(begin, begin + chunk)
        counts = labels[part] != IGNORED
        real = counts.to(exact)
        # A target that does not count has neither gradient nor, through the table's, any trace.
        seen = hidden[part].masked_fill(~counts.unsqueeze(-1), 0)
        scores = product(seen, weight, bias).to(exact)
        highest, best = scores.max(-1)
        places = labels[part].masked_fill(~counts, 0).unsqueeze(-1)
        right = scores[:, :classes].gather(1, places).squeeze(-1)
        probabilities = scores.softmax(-1)
        # By the largest probability, which never vanishes as the right one's may; scores are
        # subtracted from scores first, for large ones would swallow the logarithm.
        uncertain = probabilities.gather(1, best.unsqueeze(-1)).squeeze(-1).log()
        total += ((highest - right - uncertain) * real).sum()
        correct += ((best == labels[part]) * real).sum()
        if not needed:
            continue
        probabilities.scatter_add_(1, places, -torch.ones_like(real).unsqueeze(-1))
        of_bias += real @ probabilities
        slopes = probabilities.to(hidden.dtype)
        torch.mul(product(slopes, weight.t()), real.unsqueeze(-1), out=of_hidden[part])
        of_table = outer(slopes, seen).to(exact)  # chunks are summed in fp32
        of_weight = of_table if of_weight is None else of_weight.add_(of_table)
    if of_weight is None:
        of_weight = torch.zeros_like(weight, dtype=exact)
    return Summed(total, correct), [of_hidden, of_weight[:classes], of_bias[:classes]]


def _padded(weight: Tensor, bias: Tensor, multiple: int | None) -> tuple[Tensor, Tensor]:
    """Table and bias with classes of no probability up to a multiple."""
    if multiple is None:
        multiple = _MULTIPLE.get(weight.device.type, 1)
    missing = -len(weight) % multiple
    if not missing:
        return weight, bias
    return F.pad(weight, (0, 0, 0, missing)), F.pad(bias, (0, missing), value=float("-inf"))
