"""Sums and updates by tensor, on flat memory in which tensors begin and end anywhere.

A :class:`BlockTable` cuts the memory into *rows* of ``BLOCK`` elements and knows the tensor of
every row. What a rule needs to know of a tensor, a scalar each, is spread over its rows, and what
it finds in a row is added up by tensor. A row in which tensors meet, or padding begins, is taken
apart: its tensors' elements are copied out as *crumbs*, short rows and single elements.

    memory   | query ...                 key ...           |pad|
    rows     |     0     |     1     |     2     |     3     |     BLOCK elements each
    tensor   |   query   |     -     |    key    |     -     |
    crumbs   the end of query and the beginning of key from row 1, the end of key from row 3

A rule is a function of whole rows, written down once. Large tables run it compiled, as one pass
over the memory; small ones run it as it stands, and so start at once.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.optim.zero_layout import Partition

logger = logging.getLogger(__name__)

BLOCK = 1024
"""Elements in a row. Its sums are those of fp32; sums over rows are fp64."""

CRUMB = 32
"""Elements in a short row; what is left of a tensor then is rows of one element."""

ALL_CRUMBS = 64 * BLOCK
"""Flat tensors below this size have no rows: calls would cost more than elements."""

COMPILED = 4 * 1024 * BLOCK
"""Tables from this size on (4M elements) are compiled. That takes 10 to 15 s where nothing is
cached, and saves 8 ns an element and step on a CPU: it has paid after 400 steps, or 15 of BERT's.
Smaller ones start at once."""

PIECE = 64 * BLOCK
"""Elements that a CPU works on at once where it does not run compiled: what its cache holds."""

_NOT_COMPILED = (
    torch._dynamo.exc.TorchDynamoException,
    torch._dynamo.exc.FailOnRecompileLimitHit,
)

Rule: TypeAlias = Callable[..., Any]
"""``rule(*quantities, scalars)`` of rows: quantities ``[rows, width]``, scalars
``[rows, columns]``. It returns ``[rows, sums]``, or changes quantities in place."""

Flats: TypeAlias = Sequence[Float[Tensor, " elements"]]
"""The quantities of one partition: weights, moments, gradients."""


@dataclass(frozen=True)
class _Crumbs:
    """Rows of one width that are copied out.

    Attributes:
        width: elements in a row.
        partitions: those that have any, by number.
        places: where their elements lie; a slice where they are the whole memory.
        counts: rows.
    """

    width: int
    partitions: list[int] = field(default_factory=list)
    places: list[Tensor | slice] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def copy(self, quantities: Sequence[Flats]) -> list[Tensor]:
        """Every quantity of all partitions together, ``[crumbs, width]``."""
        flats = [quantities[number] for number in self.partitions]
        if not flats:
            return [flat.new_empty(0, self.width) for flat in quantities[0]]
        return [
            torch.cat(
                [flat[places] for flat, places in zip(column, self.places, strict=True)]
            ).view(-1, self.width)
            for column in zip(*flats, strict=True)
        ]

    def put_back(self, crumbs: Sequence[Tensor], quantities: Sequence[Flats]) -> None:
        """Copy the first quantities to their places."""
        lengths = [count * self.width for count in self.counts]
        for number, values in enumerate(crumbs):
            pieces = torch.split(values.view(-1), lengths)
            for partition, places, piece in zip(self.partitions, self.places, pieces, strict=True):
                quantities[partition][number][places] = piece


class BlockTable:
    """Where the tensors of some partitions lie, in rows and crumbs.

    Args:
        partitions: at least one.

    Attributes:
        names: of all tensors, partition after partition; scalars and sums come in this order.
        large: whether rules are worth compiling.

    Raises:
        ValueError: the partitions differ in device or precision.
    """

    def __init__(self, partitions: Sequence[Partition]) -> None:
        kinds = {(partition.flat.device, partition.flat.dtype) for partition in partitions}
        if len(kinds) > 1:
            raise ValueError(
                "tensors that are stepped together must be on one device and in one precision, "
                f"not {', '.join(sorted(map(str, kinds)))}; give each kind its own optimizer"
            )
        ((device, self._dtype),) = kinds
        self.names = [name for partition in partitions for name in partition.names]
        self.crumbs = [_Crumbs(width) for width in (CRUMB, 1)]
        self._num_rows: list[int] = []
        owners: list[list[Tensor]] = [[], [], []]
        first = 0
        for number, partition in enumerate(partitions):
            rows, rest = _cut(partition, first, nobody=len(self.names))
            self._num_rows.append(len(rows))
            owners[0].append(rows)
            for crumbs, (places, tensors), known in zip(self.crumbs, rest, owners[1:], strict=True):
                if len(tensors):
                    everything = len(places) == partition.flat.numel()
                    crumbs.partitions.append(number)
                    crumbs.places.append(slice(None) if everything else places.to(device))
                    crumbs.counts.append(len(tensors))
                    known.append(tensors)
            first += len(partition.names)
        self._owners = torch.cat([part for kind in owners for part in kind]).to(device)
        self.large = sum(self._num_rows) * BLOCK >= COMPILED

    def rows(self, quantities: Sequence[Flats]) -> list[list[Float[Tensor, "rows block"]]]:
        """Views of the memory, by partition, of those that have rows."""
        return [
            [flat[: num_rows * BLOCK].view(num_rows, BLOCK) for flat in flats]
            for flats, num_rows in zip(quantities, self._num_rows, strict=True)
            if num_rows
        ]

    def spread(self, scalars: Float[Tensor, "tensors columns"]) -> list[Tensor]:
        """Scalars by row, for every partition that has rows, then for the kinds of crumbs.

        Rows that are no tensor's as a whole have zeros.
        """
        by_tensor = torch.nn.functional.pad(scalars, (0, 0, 0, 1)).to(self._dtype)
        lengths = [*filter(None, self._num_rows), *(sum(kind.counts) for kind in self.crumbs)]
        return list(torch.split(by_tensor[self._owners], lengths))

    def add_up(self, by_row: Float[Tensor, "rows sums"]) -> Float[Tensor, "tensors sums"]:
        """By tensor, in fp64, what was found in rows and crumbs."""
        total = by_row.new_zeros(len(self.names) + 1, by_row.shape[1], dtype=torch.float64)
        if total.is_cuda:  # where `index_add_` adds in no fixed order, and ranks would drift apart
            return total.index_put_((self._owners,), by_row.double(), accumulate=True)[:-1]
        return total.index_add_(0, self._owners, by_row.double())[:-1]


class Blocks:
    """The quantities of partitions, cut by their table. It lives for a step.

    Args:
        table: of the partitions.
        quantities: by partition, as they are stored.
    """

    def __init__(self, table: BlockTable, quantities: Sequence[Flats]) -> None:
        self._table, self._quantities = table, quantities
        self._rows = table.rows(quantities)
        self._crumbs = [kind.copy(quantities) for kind in table.crumbs]

    def sums(
        self, rule: Rule, scalars: Float[Tensor, "tensors columns"]
    ) -> Float[Tensor, "tensors sums"]:
        """What a rule returns of rows, added up by tensor."""
        return self._table.add_up(torch.cat(self._run(rule, scalars)))

    def update(
        self, rule: Rule, scalars: Float[Tensor, "tensors columns"], *, changed: int
    ) -> None:
        """Let a rule change the first ``changed`` quantities in place.

        It must leave alone the rows whose scalars are all zero.
        """
        self._run(rule, scalars)
        for kind, crumbs in zip(self._table.crumbs, self._crumbs, strict=True):
            kind.put_back(crumbs[:changed], self._quantities)

    def _run(self, rule: Rule, scalars: Tensor) -> list[Any]:
        run = compiled(rule) if self._table.large else in_pieces(rule)
        spread = self._table.spread(scalars)
        by_row = zip(self._rows, spread[: len(self._rows)], strict=True)
        by_crumb = zip(self._crumbs, spread[len(self._rows) :], strict=True)
        return [
            *(run(*rows, own) for rows, own in by_row),
            *(in_pieces(rule)(*crumbs, own) for crumbs, own in by_crumb),
        ]


def _cut(
    partition: Partition, first: int, *, nobody: int
) -> tuple[Tensor, list[tuple[Int[Tensor, " elements"], Int[Tensor, " crumbs"]]]]:
    """The tensors of rows; then for either kind of crumbs their elements' places, and tensors.

    Args:
        partition: whose flat tensor is cut.
        first: the number of its first tensor.
        nobody: the number that stands for none.
    """
    numel = partition.flat.numel()
    rows = torch.full((numel // BLOCK if numel >= ALL_CRUMBS else 0,), nobody)
    places, tensors = [[torch.arange(0)], [torch.arange(0)]], [[torch.arange(0)], [torch.arange(0)]]
    for fragment in partition.fragments:
        start, stop = fragment.start, fragment.start + fragment.length
        begin, end = -(-start // BLOCK), min(stop // BLOCK, len(rows))
        rows[begin:end] = first + fragment.tensor
        edges = (start, begin * BLOCK, end * BLOCK, stop) if begin < end else (start, stop)
        for left, right in zip(edges[::2], edges[1::2], strict=True):
            middle = right - (right - left) % CRUMB
            for kind, (a, b, width) in enumerate(((left, middle, CRUMB), (middle, right, 1))):
                places[kind].append(torch.arange(a, b))
                tensors[kind].append(torch.full(((b - a) // width,), first + fragment.tensor))
    return rows, [(torch.cat(p), torch.cat(t)) for p, t in zip(places, tensors, strict=True)]


@functools.cache
def in_pieces(rule: Rule) -> Rule:
    """The rule as it stands, on so many rows at a time that its intermediate results stay small."""

    def run(*operands: Tensor) -> Tensor | None:
        rows, width = operands[0].shape
        piece = PIECE // width if operands[0].device.type == "cpu" else rows
        if rows <= piece:
            return rule(*operands)  # type: ignore[no-any-return]
        parts = zip(*(torch.split(operand, piece) for operand in operands), strict=True)
        found = [rule(*part) for part in parts]
        return None if found[0] is None else torch.cat(found)

    return run


@functools.cache
def compiled(rule: Rule) -> Rule:
    """The rule as one pass over the memory; where there is no compiler, in pieces, told once."""
    fast = torch.compile(rule, dynamic=True, fullgraph=True)

    def run(*operands: Tensor) -> Tensor | None:
        nonlocal fast
        try:
            return fast(*operands)  # type: ignore[no-any-return]
        except _NOT_COMPILED as error:
            _say_uncompiled(" ".join(str(error).split("\n")[:2]))
            fast = in_pieces(rule)
            return fast(*operands)  # type: ignore[no-any-return]

    return run


@functools.cache
def _say_uncompiled(reason: str) -> None:
    logger.warning("the optimizer runs uncompiled, about 7 times as long: %s", reason)
