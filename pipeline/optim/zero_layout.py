"""Where the model's tensors lie in the flat tensors that DeepSpeed hands to an optimizer.

ZeRO trains one flat fp32 tensor a parameter group (at stage 3 one a *sub-group*), of which every
rank owns a part. A rank's part starts and ends anywhere in a model's tensor, and holds padding:

    group       | embedding            | query       | key         |pad|
    rank 0      | embedding            | query |
    rank 1                                     ry   | key         |pad|

A :class:`Fragment` is the piece of one tensor in one such part. Everything outside fragments is
padding, which at stage 3 is memory nobody ever wrote to.

Nothing here imports DeepSpeed: its optimizer wrappers are recognised by the attributes they keep
their tensors in (written against 0.19).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

Names: TypeAlias = Mapping[Tensor, str]
"""The model's tensors by identity, as torch hashes them."""

WAY_OUT = "train at ZeRO stage 0, or with the local engine, and report the DeepSpeed version"


@dataclass(frozen=True)
class Fragment:
    """``length`` elements from ``start`` on of a flat tensor: a piece of tensor number ``tensor``.

    Attributes:
        start: where it begins in the flat tensor.
        length: in elements.
        tensor: counts within :attr:`Partition.names`.
        offset: where it begins in its tensor, whose elements count row by row.
    """

    start: int
    length: int
    tensor: int
    offset: int = 0

    @property
    def span(self) -> slice:
        """Its place in the flat tensor."""
        return slice(self.start, self.start + self.length)


@dataclass(frozen=True, eq=False)
class Partition:
    """What this rank owns of some tensors of the model.

    Attributes:
        flat: the fp32 tensor that the optimizer is handed.
        names: the tensors of all ranks' parts together, in an order common to all ranks.
        fragments: the pieces of them that lie in ``flat``, by ascending start.
        process_group: the ranks that share these tensors; None where each rank has them whole.
    """

    flat: Tensor
    names: tuple[str, ...]
    fragments: tuple[Fragment, ...]
    process_group: dist.ProcessGroup | None = None


def whole(tensor: Tensor, name: str) -> Partition:
    """A tensor that lies on this rank as one piece."""
    fragments = (Fragment(0, tensor.numel(), 0),) if tensor.numel() else ()
    return Partition(tensor, (name,), fragments)


def find_partitions(wrapper: Any, names: Names, device: torch.device) -> list[Partition]:
    """The flat tensors of a DeepSpeed optimizer wrapper, verified. Every rank must call it.

    Args:
        wrapper: ``engine.optimizer``, as ``deepspeed.initialize`` left it.
        names: the model's trained tensors.
        device: where collectives run.

    Raises:
        ValueError: an unknown wrapper or tensor, values that differ from the model's, or ranks
            that together do not hold every tensor exactly once.
    """
    if hasattr(wrapper, "fp32_partitioned_groups_flat"):
        return [
            _sliced(flat, parameters, names, device)
            for flat, parameters in zip(
                wrapper.fp32_partitioned_groups_flat, wrapper.fp16_groups, strict=True
            )
        ]
    if hasattr(wrapper, "single_partition_of_fp32_groups"):
        buffers = zip(
            wrapper.single_partition_of_fp32_groups,
            wrapper.parallel_partitioned_bit16_groups,
            wrapper.bit16_groups,
            wrapper.real_dp_process_group,
            strict=True,
        )
        return [_overlapping(*buffer, names, device) for buffer in buffers]
    if hasattr(wrapper, "fp32_groups_flat_partition"):
        buffers = zip(
            wrapper.fp32_groups_flat_partition,
            wrapper.bf16_partitioned_groups,
            wrapper.bf16_groups,
            wrapper.real_dp_process_group,
            strict=True,
        )
        return [_overlapping(*buffer, names, device) for buffer in buffers]
    if hasattr(wrapper, "fp32_groups"):
        return [
            _master(copy, parameter, names, device)
            for copies, parameters in zip(wrapper.fp32_groups, wrapper.fp16_groups, strict=True)
            for copy, parameter in zip(copies, parameters, strict=True)
        ]
    raise ValueError(f"{type(wrapper).__name__} keeps its tensors in an unknown way: {WAY_OUT}")


def _sliced(
    flat: Tensor, parameters: Sequence[Any], names: Names, device: torch.device
) -> Partition:
    """A sub-group of stage 3: an equal slice of every tensor, one behind the other.

    A tensor is cut into slices of ``ceil(numel / ranks)`` elements, so that the last rank's may
    end in padding, or hold nothing else.
    """
    process_group = parameters[0].ds_process_group
    rank = dist.get_rank(process_group)
    fragments, expected, start = [], [], 0
    for number, parameter in enumerate(parameters):
        slice_length = parameter.partition_numel()
        offset = rank * slice_length
        length = min(slice_length, parameter.ds_numel - offset)
        if length > 0:
            fragments.append(Fragment(start, length, number, offset))
            expected.append(parameter.ds_tensor.detach()[:length])
        start += slice_length
    lengths = [parameter.ds_numel for parameter in parameters]
    partition = Partition(flat, _names(parameters, names), tuple(fragments), process_group)
    return _verified(partition, expected, lengths, device)


def _overlapping(
    flat: Tensor,
    parts: Sequence[Tensor],
    parameters: Sequence[Tensor],
    process_group: dist.ProcessGroup,
    names: Names,
    device: torch.device,
) -> Partition:
    """A group of stages 1 and 2: a cut through a buffer in which the model's tensors are views.

    Addresses tell where the tensors lie in the buffer, whatever its order and alignment.

    Args:
        flat: fp32 copy of this rank's part.
        parts: the buffer in the model's precision, cut into one part a rank.
        parameters: the model's tensors.
        process_group: the ranks.
        names: of the model's tensors.
        device: where collectives run.
    """
    part = parts[dist.get_rank(process_group)]
    found = []
    for number, parameter in enumerate(parameters):
        origin = (parameter.data_ptr() - part.data_ptr()) // part.element_size()
        start, stop = max(origin, 0), min(origin + parameter.numel(), part.numel())
        if start < stop:
            fragment = Fragment(start, stop - start, number, start - origin)
            values = parameter.detach().view(-1)[start - origin : stop - origin]
            found.append((fragment, values))
    found.sort(key=lambda item: item[0].start)
    fragments = tuple(fragment for fragment, _ in found)
    partition = Partition(flat, _names(parameters, names), fragments, process_group)
    lengths = [parameter.numel() for parameter in parameters]
    return _verified(partition, [values for _, values in found], lengths, device)


def _master(copy: Tensor, parameter: Tensor, names: Names, device: torch.device) -> Partition:
    """The fp32 copy of one tensor, as stage 0 keeps it for a model of lower precision."""
    partition = whole(copy, *_names([parameter], names))
    return _verified(partition, [parameter.detach().view(-1)], [parameter.numel()], device)


def _names(parameters: Iterable[Tensor], names: Names) -> tuple[str, ...]:
    try:
        return tuple(names[parameter] for parameter in parameters)
    except KeyError:
        raise ValueError(
            "DeepSpeed trains a tensor that this optimizer was not given; build the optimizer "
            "from the very model that deepspeed.initialize receives"
        ) from None


def _verified(
    partition: Partition, expected: Sequence[Tensor], lengths: Sequence[int], device: torch.device
) -> Partition:
    """The partition, if all ranks' fragments together hold every value of the model once.

    A fragment whose values differ is not counted, so that all ranks raise, not one alone.
    """
    flat = partition.flat.detach().view(-1)
    held = torch.zeros(len(lengths), dtype=torch.int64)
    for fragment, values in zip(partition.fragments, expected, strict=True):
        if torch.equal(flat[fragment.span].to(values), values):
            held[fragment.tensor] += fragment.length
    if partition.process_group is not None:
        held = held.to(device)
        dist.all_reduce(held, group=partition.process_group)
    for name, count, length in zip(partition.names, held.tolist(), lengths, strict=True):
        if count != length:
            raise ValueError(
                f"{name}: {count} of {length} elements lie where they were expected in DeepSpeed's "
                f"memory; bind before anything is loaded or stepped. If that is so: {WAY_OUT}"
            )
    return partition
