"""The kernels of a GPU beside dense attention in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pipeline.batch import Batch
from pipeline.nn.attending import Attending, Dense, Flex, Kernel, Varlen
from pipeline.nn.masks import IndexMask, both, causal, everywhere, same_sequence

HEADS, SIZE, LENGTH = 4, 64, 200
SEQUENCES = torch.zeros(2, LENGTH, dtype=torch.long)
SEQUENCES[0, :70], SEQUENCES[0, 70:190], SEQUENCES[1] = 1, 2, 1
BOUND = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
"""Of the largest value: a few units of the format's last place."""


class Distances(nn.Module):
    """A learned number for each head and distance."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(HEADS, 2 * LENGTH))

    def term(self, row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.table[head, query - key + LENGTH]


def assert_equal(
    kernel: Kernel, mask: IndexMask, dtype: torch.dtype, distances: Distances | None
) -> None:
    """Values and gradients, the term's too."""
    torch.manual_seed(0)
    given = torch.randn(3, 2, HEADS, LENGTH, SIZE, device="cuda", dtype=dtype)
    given.requires_grad_()
    exact = given.detach().double().requires_grad_()
    term = distances.term if distances is not None else None
    mixed = kernel(*given.unbind(), term=term)
    slope = torch.randn_like(mixed)
    wanted = [given, *(distances.parameters() if distances is not None else [])]
    found = [mixed, *torch.autograd.grad(mixed, wanted, slope)]

    dense = Dense(everywhere(mask, 2, 1, LENGTH, LENGTH, mixed.device))
    judged = dense(*exact.unbind(), term=term)
    wanted[0] = exact
    right = [judged, *torch.autograd.grad(judged, wanted, slope.double())]
    for one, other in zip(found, right, strict=True):
        off = (one.double() - other.double()).abs().max() / other.double().abs().max()
        assert off < BOUND[dtype]


def batch() -> Batch:
    ids = SEQUENCES.cuda()
    zeros = torch.zeros_like(ids)
    return Batch(zeros, ids, zeros, zeros)


def like(dtype: torch.dtype) -> Tensor:
    return torch.zeros(1, device="cuda", dtype=dtype)


def test_attention_by_boundaries() -> None:
    one = batch()
    kernel = Attending(0.0, 64).within(one, like=like(torch.bfloat16))
    assert isinstance(kernel, Varlen)
    assert_equal(kernel, same_sequence(one.sequence_ids), torch.bfloat16, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_term", [False, True])
def test_flexible_attention_with_rules_and_terms(dtype: torch.dtype, with_term: bool) -> None:
    one = batch()
    kernel = Attending(0.0, 64, rule=True, term=with_term).within(one, causal, like=like(dtype))
    assert isinstance(kernel, Flex)
    distances = Distances().cuda() if with_term else None
    assert_equal(kernel, both(same_sequence(one.sequence_ids), causal), dtype, distances)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_term", [False, True])
def test_dense_attention_where_weights_are_dropped_in_training(
    dtype: torch.dtype, with_term: bool
) -> None:
    one = batch()
    kernel = Attending(0.1, 64, term=with_term).within(one, like=like(dtype))
    assert isinstance(kernel, Dense)
    distances = Distances().cuda() if with_term else None
    assert_equal(kernel, same_sequence(one.sequence_ids), dtype, distances)


def test_finding_the_hidden_blocks_does_not_wait() -> None:
    one = batch()
    attending = Attending(0.0, 64, rule=True, term=True)
    attending.within(one, causal, like=like(torch.bfloat16))
    torch.cuda.set_sync_debug_mode("error")
    try:
        kernel = attending.within(one, causal, like=like(torch.bfloat16))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert isinstance(kernel, Flex)
