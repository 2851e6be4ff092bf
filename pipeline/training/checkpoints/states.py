"""The state of a training tensor by tensor: the form in which it moves between engines.

What an engine saves is cut for its ZeRO stage and its number of ranks. A :class:`SavedState` shows
it by the names of the model's tensors instead, without having read it: its pieces stay in the
files, mapped into memory. Another engine, on any number of ranks, copies what each rank owns:

    saved       | rank 0's part          | rank 1's part    |
    query       | . . . . . [ . . . . . .|. . ] . . . . . . |
    wanted      | rank 0's   | rank 1's   | rank 2's        |

No intermediate file is written, and nothing larger than one piece is copied at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor, nn

from pipeline.optim import Lamb
from pipeline.optim.zero_layout import Fragment, Partition
from preprocessing.storage import InputError

Count: TypeAlias = int | float
"""A number that an optimizer keeps, such as its steps."""


@dataclass(frozen=True)
class Pieces:
    """A tensor that lies in flat pieces, one behind the other.

    Attributes:
        shape: of the whole.
        parts: the pieces in the order of the elements, row by row.
    """

    shape: tuple[int, ...]
    parts: tuple[Tensor, ...]

    @staticmethod
    def whole(tensor: Tensor) -> Pieces:
        """A tensor that lies in one piece."""
        return Pieces(tuple(tensor.shape), (tensor.reshape(-1),))

    @property
    def numel(self) -> int:
        """Elements of all pieces."""
        return sum(part.numel() for part in self.parts)

    def read(self, start: int = 0, length: int | None = None) -> Tensor:
        """``length`` elements from ``start`` on, flat; without arguments all of them."""
        stop = self.numel if length is None else start + length
        found, origin = [], 0
        for part in self.parts:
            first, last = max(start - origin, 0), min(stop - origin, part.numel())
            if first < last:
                found.append(part[first:last])
            origin += part.numel()
        return found[0] if len(found) == 1 else torch.cat(found)


@dataclass(frozen=True)
class SavedState:
    """Weights and optimizer state by the names of the model's tensors.

    Attributes:
        weights: whole tensors in fp32.
        masters: the same as an engine kept them in parts, cut as the moments are; empty where it
            kept none. They prove that the pieces lie where they were looked for.
        moments: of each trained tensor, by the optimizer's names for them; empty where only
            weights were saved.
        counts: as moments; ``step`` and the like.
        tensor_steps: steps that moved a tensor, where they were counted.
    """

    weights: Mapping[str, Tensor]
    masters: Mapping[str, Pieces] = field(default_factory=dict)
    moments: Mapping[str, Mapping[str, Pieces]] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, Count]] = field(default_factory=dict)
    tensor_steps: Mapping[str, int] = field(default_factory=dict)

    def weight(self, name: str, start: int, length: int) -> Tensor:
        """Some elements of a weight, flat.

        Raises:
            InputError: the engine's own copy says something else.
        """
        values = self.weights[name].reshape(-1)[start : start + length]
        if name in self.masters and not torch.equal(self.masters[name].read(start, length), values):
            raise InputError(
                f"{name}: the optimizer's copy differs from the checkpoint's weights, so its "
                "moments cannot be trusted to be this tensor's; resume at the number of ranks and "
                "the ZeRO stage that wrote this checkpoint"
            )
        return values


def names_in_order(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """The tensors that an optimizer was given, in the order in which it saves their states."""
    names = {tensor: name for name, tensor in model.named_parameters()}
    return [names[tensor] for group in optimizer.param_groups for tensor in group["params"]]


@torch.no_grad()
def fill(
    partitions: Iterable[Partition], optimizer: torch.optim.Optimizer, saved: SavedState
) -> None:
    """Copy what this rank owns of weights, moments and counts to where the optimizer keeps it.

    Tensors that are not among the saved ones keep what they have.

    Raises:
        InputError: the saved moments may be those of other tensors.
    """
    groups = {flat: group for group in optimizer.param_groups for flat in group["params"]}
    for partition in partitions:
        for name, fragment in _named(partition):
            if name in saved.weights:
                values = saved.weight(name, fragment.offset, fragment.length)
                partition.flat.view(-1)[fragment.span].copy_(values)
        if saved.moments:
            on_device = groups.get(partition.flat, optimizer.defaults).get("fused", False)
            _fill_state(partition, optimizer, saved, counts_on_device=on_device)
    steps = [counts["step"] for counts in saved.counts.values() if "step" in counts]
    for group in optimizer.param_groups:
        if "step" in group and steps:
            group["step"] = max(steps)
    restore_tensor_steps(optimizer, saved.tensor_steps)


def tensor_steps(optimizer: torch.optim.Optimizer) -> Mapping[str, int]:
    """Steps that moved each tensor, by an optimizer that counts them."""
    return optimizer.tensor_steps() if isinstance(optimizer, Lamb) else {}


def restore_tensor_steps(optimizer: torch.optim.Optimizer, steps: Mapping[str, int]) -> None:
    """Give such an optimizer its counts back; those that are not among them follow its groups."""
    if isinstance(optimizer, Lamb):
        optimizer.restore_tensor_steps(steps)


def _fill_state(
    partition: Partition,
    optimizer: torch.optim.Optimizer,
    saved: SavedState,
    *,
    counts_on_device: bool,
) -> None:
    flat, state = partition.flat, optimizer.state[partition.flat]
    for name, fragment in _named(partition):
        for key, pieces in saved.moments.get(name, {}).items():
            if pieces.numel != saved.weights[name].numel():  # factored: of tensors that lie whole
                state[key] = pieces.read().to(flat.device, copy=True).view(pieces.shape)
                continue
            if key not in state:
                state[key] = torch.zeros_like(flat, requires_grad=False)
            values = pieces.read(fragment.offset, fragment.length)
            state[key].view(-1)[fragment.span].copy_(values)
    for key, count in _largest(saved.counts.get(name, {}) for name in partition.names).items():
        # Optimizers of torch's count in tensors, Lamb in whole numbers.
        where = flat.device if counts_on_device else "cpu"
        state[key] = count if isinstance(count, int) else torch.tensor(count, device=where)


def _named(partition: Partition) -> Iterator[tuple[str, Fragment]]:
    return ((partition.names[fragment.tensor], fragment) for fragment in partition.fragments)


def _largest(counts: Iterable[Mapping[str, Count]]) -> dict[str, Count]:
    """A flat tensor has one count for all tensors in it: that of the one that moved most often."""
    largest: dict[str, Count] = {}
    for each in counts:
        for key, count in each.items():
            largest[key] = max(count, largest.get(key, count))
    return largest
