"""Who may attend to whom, each rule written once as a function of indices.

An *index mask* answers for one score: ``mask(row, head, query, key)`` is true where the query may
attend to the key. Its arguments are integer tensors of any shapes that broadcast, so the same
function is evaluated on all indices at once for dense attention (:func:`dense`) and passed as
``mask_mod`` to ``torch.nn.attention.flex_attention.create_block_mask``. Rules are joined by
:func:`both`, ``both(same_sequence(sequence_ids), causal)``, and every query has a key that it may
attend to: the softmax over none would be NaN, or uniform over everything that is to be hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from preprocessing.corruption.prefix import ALL, EARLIER, LATER

IndexMask: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""``(row, head, query, key) -> bool``, elementwise."""
IndexTerm: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""``(row, head, query, key) -> what is added to the score``, elementwise."""


def same_sequence(sequence_ids: Int[Tensor, "rows length"]) -> IndexMask:
    """Attention stays within the sequence.

    Padding carries id 0 and so attends to padding alone: no query is left without a key, whose
    softmax would be NaN.

        sequence_ids  1 1 2 0      query 0 sees keys 0 1, query 2 sees key 2, query 3 sees key 3
    """

    def mask(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return sequence_ids[row, query] == sequence_ids[row, key]

    return mask


def both(first: IndexMask, second: IndexMask) -> IndexMask:
    """What two rules allow."""

    def mask(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return first(row, head, query, key) & second(row, head, query, key)

    return mask


def causal(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """No token sees what follows it (GPT)."""
    return key <= query


def reverse_causal(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """No token sees what goes before it."""
    return key >= query


def by_viewers(seen_by: Int[Tensor, "rows length"]) -> IndexMask:
    """Each token is seen by its whole sequence, by what follows it, or by what goes before it.

    So attend prefix language models and all modes of UniLM; every token sees itself.

    Args:
        seen_by: the channel of that name (:mod:`preprocessing.corruption.prefix`).

        seen_by  0 0 1 1      queries 0 and 1 see keys 0 1, query 2 sees 0 1 2, query 3 sees all
    """

    def mask(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        viewers = seen_by[row, key]
        later = (viewers == LATER) & (key <= query)
        return (viewers == ALL) | later | ((viewers == EARLIER) & (key >= query))

    return mask


def others(sequence_ids: Int[Tensor, "rows length"]) -> IndexMask:
    """No token sees itself (T-TA), unless its sequence has no other.

    Such a single one is no target (:mod:`preprocessing.corruption.every`), nor is padding.
    """
    same_as_next = sequence_ids[:, 1:] == sequence_ids[:, :-1]
    alone = ~(F.pad(same_as_next, (1, 0)) | F.pad(same_as_next, (0, 1)))

    def mask(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query != key) | alone[row, query]

    return mask


def content_stream(ranks: Int[Tensor, "rows length"]) -> IndexMask:
    """A token sees itself and what stands before it in a permutation (XLNet).

    Args:
        ranks: the channel of that name (:mod:`preprocessing.corruption.permutation`); tokens of
            rank 0, which are no targets, see each other.

        ranks  0 2 0 1      queries 0 and 2 see keys 0 2, query 1 sees all, query 3 sees 0 2 3
    """

    def mask(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return ranks[row, key] <= ranks[row, query]

    return mask


def query_stream(ranks: Int[Tensor, "rows length"]) -> IndexMask:
    """A token sees what stands before it in a permutation, and not itself (XLNet).

    Tokens of rank 0 have nobody before them and see each other; they are no targets.

        ranks  0 2 0 1      queries 0 and 2 see keys 0 2, query 1 sees 0 2 3, query 3 sees 0 2
    """

    def mask(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return ranks[row, key] < ranks[row, query].clamp(min=1)

    return mask


def after_memory(mask: IndexMask, memory_length: int) -> IndexMask:
    """The same rule for keys that stand behind those of a memory, which all queries see.

    Source: Dai et al. 2019, https://arxiv.org/abs/1901.02860, section 3.2.

        memory of 2, causal, length 2      query 0 sees keys 0 1 2, query 1 sees keys 0 1 2 3
    """

    def shifted(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own = key - memory_length
        return (own < 0) | mask(row, head, query, own.clamp(min=0))

    return shifted


def dense(
    mask: IndexMask,
    rows: int,
    length: int,
    device: torch.device | None = None,
    *,
    memory_length: int = 0,
) -> Bool[Tensor, "rows 1 length keys"]:
    """A mask that is alike for all heads, evaluated for every pair of query and key.

    There are ``memory_length`` more keys than queries.
    """
    return everywhere(mask, rows, 1, length, memory_length + length, device)


def everywhere(
    function: IndexTerm,
    rows: int,
    heads: int,
    queries: int,
    keys: int,
    device: torch.device | None = None,
) -> Shaped[Tensor, "rows heads queries keys"]:
    """An index function evaluated for every row, head, query and key."""
    row = torch.arange(rows, device=device).view(-1, 1, 1, 1)
    head = torch.arange(heads, device=device).view(1, -1, 1, 1)
    query = torch.arange(queries, device=device).view(1, 1, -1, 1)
    key = torch.arange(keys, device=device).view(1, 1, 1, -1)
    return function(row, head, query, key).expand(rows, heads, queries, keys)


def hides_nothing(sequence_ids: Int[Tensor, "rows length"]) -> bool:
    """Whether every row is one sequence from end to end, so that no mask is needed.

    The answer decides between kernels on the host. It is only sought where it is free: on an
    accelerator, waiting for it would cost more than the mask.
    """
    if sequence_ids.device.type != "cpu":
        return False
    return bool((sequence_ids == sequence_ids[:, :1]).all())
