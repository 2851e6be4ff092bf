"""The formula of attention written out in float64, and what it is asked to compute."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.batch import Batch
from pipeline.nn.attending import Kernel
from pipeline.nn.masks import IndexMask, IndexTerm, everywhere

ROWS, HEADS, SIZE = 2, 3, 8
SEQUENCES = torch.tensor([[1, 1, 1, 1, 2, 2, 2, 3, 3, 0, 0], [1] * 6 + [2] * 5])
LENGTH = SEQUENCES.shape[1]
LIKE = torch.zeros(1, dtype=torch.float64)


def batch(sequence_ids: Tensor) -> Batch:
    zeros = torch.zeros_like(sequence_ids)
    return Batch(zeros, sequence_ids, zeros, zeros)


def heads(queries: int, keys: int, rows: int = ROWS) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    shapes = [(rows, HEADS, length, SIZE) for length in (queries, keys, keys)]
    query, key, value = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    return query.requires_grad_(), key.requires_grad_(), value.requires_grad_()


def formula(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: IndexMask,
    term: IndexTerm | None = None,
    scale: float | None = None,
) -> Tensor:
    """Softmax over what is visible, with exponentials written out."""
    rows, num_heads, queries, size = query.shape
    shape = (rows, num_heads, queries, key.shape[2])
    scores = query @ key.mT * (size**-0.5 if scale is None else scale)
    if term is not None:
        scores = scores + everywhere(term, *shape)
    weights = scores.exp() * everywhere(mask, *shape)
    return weights / weights.sum(-1, keepdim=True) @ value


class Distances(nn.Module):
    """A learned number for each head and distance (T5)."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.table = nn.Parameter(torch.randn(HEADS, 2 * reach + 1, dtype=torch.float64))

    def term(self, row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.table[head, (key - query).clamp(-self.reach, self.reach) + self.reach]


class Disentangled(nn.Module):
    """Contents against distances, both ways, gathered from ``[rows, heads, length, 2k]``."""

    def __init__(self, length: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        shape = (2, ROWS, HEADS, length, 2 * reach)
        self.scores = nn.Parameter(torch.randn(shape, dtype=torch.float64))

    def term(self, row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        there = (query - key).clamp(-self.reach, self.reach - 1) + self.reach
        back = (key - query).clamp(-self.reach, self.reach - 1) + self.reach
        content_to_place, place_to_content = self.scores
        return content_to_place[row, head, query, there] + place_to_content[row, head, key, back]


def assert_equal(
    kernel: Kernel,
    mask: IndexMask,
    given: tuple[Tensor, Tensor, Tensor],
    module: Distances | None = None,
    scale: float | None = None,
) -> None:
    """Values and gradients, those of a term too."""
    term = module.term if module is not None else None
    wanted = [*given, *(module.parameters() if module is not None else [])]
    found = kernel(*given, term=term, scale=scale)
    right = formula(*given, mask, term, scale)
    # Measured: 7e-16, gradients 2e-15.
    torch.testing.assert_close(found, right, rtol=0, atol=1e-13)
    slope = torch.randn_like(right)
    for mine, exact in zip(
        torch.autograd.grad(found, wanted, slope),
        torch.autograd.grad(right, wanted, slope),
        strict=True,
    ):
        torch.testing.assert_close(mine, exact, rtol=0, atol=1e-12)
