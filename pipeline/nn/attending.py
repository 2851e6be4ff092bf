"""How attention is computed: a path chosen once, and for each micro-batch a kernel on that path.

A model holds one :class:`Attending`, makes a kernel before its first block, and hands it to all of
them; what a layer adds to the scores, it gives the kernel as an index function:

    kernel = self.attending.within(batch, like=embedded)
    mixed = kernel(query, key, value, dropout=0.0, term=self.bias_of_distance)

- ``varlen``: sequences one behind the other, by their boundaries; computes nothing that is hidden.
- ``flex``: mask and term go into a compiled kernel, which leaves out blocks that are hidden whole.
- ``dense``: mask and term evaluated for all pairs; the reference, and all there is on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Int32
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.attention.varlen import varlen_attn

from pipeline.batch import Batch
from pipeline.nn.compiling import compiled
from pipeline.nn.masks import (
    IndexMask,
    IndexTerm,
    both,
    everywhere,
    hides_nothing,
    same_sequence,
)

PathName: TypeAlias = Literal["varlen", "flex", "dense"]
Heads: TypeAlias = Float[Tensor, "rows heads length head_size"]


@runtime_checkable
class Kernel(Protocol):
    """``softmax(scale * query key^T + term) value``, where hidden keys have no weight."""

    def __call__(
        self,
        query: Float[Tensor, "rows heads queries head_size"],
        key: Float[Tensor, "rows heads keys head_size"],
        value: Float[Tensor, "rows heads keys head_size"],
        *,
        dropout: float = 0.0,
        scale: float | None = None,
        term: IndexTerm | None = None,
    ) -> Float[Tensor, "rows heads queries head_size"]:
        """The mixed values.

        Args:
            dropout: probability of dropping a weight.
            scale: of the product; left out, ``head_size ** -0.5``.
            term: is added to the scaled scores.

        Raises:
            ValueError: the path cannot do that.
        """


class Path(NamedTuple):
    """A way to compute attention, and why it is taken."""

    name: PathName
    reason: str


@dataclass
class Attending:
    """What a model's attention asks for.

    Attributes:
        dropout: of the attention weights, while training.
        head_size: of each head.
        rule: whether attention heeds more than whole sequences.
        term: whether something is added to the scores.
        static: every micro-batch gets a kernel of the same form, even where a simpler one would
            do, as compiled blocks want it.
    """

    dropout: float
    head_size: int
    rule: bool = False
    term: bool = False
    static: bool = False

    def path(
        self, device: str, dtype: torch.dtype, capability: tuple[int, int] | None = None
    ) -> Path:
        """The fastest path that computes what is asked for, for all micro-batches.

        Args:
            device: its type.
            dtype: of the products.
            capability: of the GPU; left out, of the current one.
        """
        size = self.head_size
        if device != "cuda":
            return Path("dense", f"there is no other on {device}")
        if self.dropout:
            return Path("dense", f"attention dropout is {self.dropout}; the others know none")
        if size < 16 or dtype == torch.float64:
            return Path("dense", f"the others do not compute heads of {size} in {dtype}")
        if self.rule or self.term:
            return Path("flex", "the model has rules or terms of its own")
        if dtype not in (torch.bfloat16, torch.float16):
            return Path("flex", f"the kernel for boundaries does not compute in {dtype}")
        if size % 8 or size > 256:
            return Path("flex", f"the kernel for boundaries does not take heads of {size}")
        if (capability or torch.cuda.get_device_capability()) < (8, 0):
            return Path("flex", "the kernel for boundaries wants a GPU of compute capability 8.0")
        return Path("varlen", "attention goes by whole sequences")

    def within(self, batch: Batch, rule: IndexMask | None = None, *, like: Tensor) -> Kernel:
        """Attention within the sequences of a batch.

        Args:
            rule: what is hidden beyond that.
            like: has the device and the precision of the hidden states.

        Raises:
            ValueError: there is a rule, and the path was chosen for a model without.
        """
        path = self._path(like, rule is not None)
        sequence_ids, begins = batch.sequence_ids, batch.boundaries
        rows, length = sequence_ids.shape
        if path.name == "varlen":
            return Varlen(boundaries(sequence_ids) if begins is None else begins, length)
        simple = path.name == "dense" and rule is None and not self.static
        if simple and hides_nothing(sequence_ids):
            return Dense(None)
        inside = same_sequence(sequence_ids)
        mask = inside if rule is None else both(inside, rule)
        return self._over(path.name, mask, rows, length, length, like)

    def over(self, mask: IndexMask, rows: int, queries: int, keys: int, *, like: Tensor) -> Kernel:
        """Attention by a rule that says everything: over a memory, or to an encoder.

        Raises:
            ValueError: the path was chosen for a model without rules.
        """
        path = self._path(like, True)
        return self._over(path.name, mask, rows, queries, keys, like)

    def _path(self, like: Tensor, rule: bool) -> Path:
        if rule and not self.rule:
            raise ValueError("the path was chosen without: give the model Attending(rule=True)")
        return self.path(like.device.type, compute_dtype(like))

    def _over(
        self, path: PathName, mask: IndexMask, rows: int, queries: int, keys: int, like: Tensor
    ) -> Kernel:
        if path == "flex":
            return Flex(create_block_mask(mask, rows, None, queries, keys, device=like.device))
        visible = everywhere(mask, rows, 1, queries, keys, like.device)
        return Dense(additive(visible, compute_dtype(like)))


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """What products with this tensor are computed in: autocast's precision, or its own."""
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensor.dtype


def additive(
    visible: Bool[Tensor, "rows 1 queries keys"], dtype: torch.dtype
) -> Float[Tensor, "rows 1 queries keys"]:
    """0 where a query may attend, minus infinity elsewhere: made once, not anew in each layer."""
    return torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, float("-inf"))


@dataclass(frozen=True)
class Dense:
    """torch's fused attention with a mask for all pairs.

    Attributes:
        mask: true, or 0, where a query may attend; None everywhere. Every query must have a key.
    """

    mask: Tensor | None

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        dropout: float = 0.0,
        scale: float | None = None,
        term: IndexTerm | None = None,
    ) -> Tensor:
        """See :class:`Kernel`."""
        mask = self.mask
        if term is not None:
            rows, heads, queries = query.shape[:3]
            own = everywhere(term, rows, heads, queries, key.shape[2], query.device)
            own = own.to(query.dtype)
            if mask is None:
                mask = own
            elif mask.dtype == torch.bool:
                mask = own.masked_fill(~mask, float("-inf"))
            else:
                mask = own + mask
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale
        )


@dataclass(frozen=True)
class Flex:
    """torch's compiled attention; the mask's blocks are found once for all layers."""

    mask: BlockMask

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        dropout: float = 0.0,
        scale: float | None = None,
        term: IndexTerm | None = None,
    ) -> Tensor:
        """See :class:`Kernel`."""
        _refuse("flex", dropout, None)

        def added(score: Tensor, row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            assert term is not None
            return score + term(row, head, query, key)

        mixed: Tensor = _flex()(
            *_lowered(query, key, value),
            score_mod=added if term is not None else None,
            block_mask=self.mask,
            scale=scale,
        )
        return mixed


@dataclass(frozen=True)
class Varlen:
    """torch's flash attention over sequences that stand one behind the other.

    Their number differs from batch to batch, and compiled code takes any.

    Attributes:
        boundaries: where each begins in the flattened rows, and the end of the last.
        longest: bound of their lengths.
    """

    boundaries: Int32[Tensor, " sequences_and_1"]
    longest: int

    def __post_init__(self) -> None:
        torch._dynamo.mark_dynamic(self.boundaries, 0)

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        dropout: float = 0.0,
        scale: float | None = None,
        term: IndexTerm | None = None,
    ) -> Tensor:
        """See :class:`Kernel`."""
        _refuse("varlen", dropout, term)
        rows = len(query)
        query, key, value = (
            heads.transpose(1, 2).flatten(0, 1) for heads in _lowered(query, key, value)
        )
        mixed = varlen_attn(
            query,
            key,
            value,
            self.boundaries,
            self.boundaries,
            self.longest,
            self.longest,
            scale=scale,
        )
        assert isinstance(mixed, Tensor)
        return mixed.view(rows, -1, *mixed.shape[1:]).transpose(1, 2)


def boundaries(sequence_ids: Int[Tensor, "rows length"]) -> Int32[Tensor, " sequences_and_1"]:
    """Where the sequences of the flattened rows begin, padding counted as one, and the end.

        sequence_ids  1 1 2 0     ->   0 2 3 4 8
                      1 1 1 1

    Their number is known to the host afterwards: on an accelerator this waits, and the trainer
    has it done beforehand (:mod:`pipeline.training.feeding`).
    """
    begins = torch.ones_like(sequence_ids, dtype=torch.bool)
    begins[:, 1:] = sequence_ids[:, 1:] != sequence_ids[:, :-1]
    places = begins.flatten().nonzero().flatten()
    return F.pad(places, (0, 1), value=sequence_ids.numel()).to(torch.int32)


def _lowered(*heads: Heads) -> tuple[Heads, ...]:
    """What autocast does for torch's dense attention, and not for the others."""
    return tuple(tensor.to(compute_dtype(tensor)) for tensor in heads)


def _refuse(path: str, dropout: float, term: IndexTerm | None) -> None:
    """What a path does not know must not be left out in silence.

    Raises:
        ValueError: it is asked for.
    """
    if dropout:
        raise ValueError(f"attention by {path} does not drop weights; set attention dropout to 0")
    if term is not None:
        raise ValueError(f"attention by {path} adds nothing to the scores; say term=True")


def _flex() -> Callable[..., Any]:
    """Compiled, for it is slow otherwise; within compiled blocks it becomes a part of them."""
    if torch.compiler.is_compiling():
        return flex_attention
    return _compiled_flex()


@cache
def _compiled_flex() -> Callable[..., Any]:
    """Uncompiled it would hold all scores."""
    return compiled(flex_attention)
