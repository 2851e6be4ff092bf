"""Who may attend to whom, each rule written once as a function of indices.

An *index mask* answers for one score: ``mask(row, head, query, key)`` is true where the query may
attend to the key. Its arguments are integer tensors of any shapes that broadcast, so the same
function is evaluated on all indices at once for dense attention (:func:`dense`) and passed as
``mask_mod`` to ``torch.nn.attention.flex_attention.create_block_mask``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Bool, Int
from torch import Tensor

IndexMask: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""``(row, head, query, key) -> bool``, elementwise."""


def same_sequence(sequence_ids: Int[Tensor, "rows length"]) -> IndexMask:
    """Attention stays within the sequence.

    Padding carries id 0 and so attends to padding alone: no query is left without a key, whose
    softmax would be NaN.

        sequence_ids  1 1 2 0      query 0 sees keys 0 1, query 2 sees key 2, query 3 sees key 3
    """

    def mask(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return sequence_ids[row, query] == sequence_ids[row, key]

    return mask


def dense(
    mask: IndexMask, rows: int, length: int, device: torch.device | None = None
) -> Bool[Tensor, "rows 1 length length"]:
    """A mask that is alike for all heads, evaluated for every pair of positions."""
    row = torch.arange(rows, device=device).view(-1, 1, 1, 1)
    head = torch.zeros(1, dtype=torch.long, device=device)
    query = torch.arange(length, device=device).view(1, 1, -1, 1)
    key = torch.arange(length, device=device).view(1, 1, 1, -1)
    return mask(row, head, query, key).expand(rows, 1, length, length)


def hides_nothing(sequence_ids: Int[Tensor, "rows length"]) -> bool:
    """Whether every row is one sequence from end to end, so that no mask is needed.

    The answer decides between kernels on the host. It is only sought where it is free: on an
    accelerator, waiting for it would cost more than the mask.
    """
    if sequence_ids.device.type != "cpu":
        return False
    return bool((sequence_ids == sequence_ids[:, :1]).all())


def within_sequences(
    sequence_ids: Int[Tensor, "rows length"],
) -> Bool[Tensor, "rows 1 length length"] | None:
    """:func:`same_sequence`, dense; None where it hides nothing."""
    if hides_nothing(sequence_ids):
        return None
    rows, length = sequence_ids.shape
    return dense(same_sequence(sequence_ids), rows, length, sequence_ids.device)
