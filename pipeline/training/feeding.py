"""From the loader's micro-batches to a step on the device, one step ahead of its use.

What a step needs to know of its data is found on the host, where it costs no waiting: how many
targets there are, and where sequences begin. On a GPU the copies of the next step then run beside
the computation of this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from pipeline.batch import Batch
from pipeline.data import MicroBatch, count_targets
from pipeline.flops import Meter
from pipeline.nn.attending import boundaries


class Fed(NamedTuple):
    """The work of one rank in one step.

    Attributes:
        batches: its micro-batches, on the device.
        counts: of this rank, on the device: those of :func:`pipeline.data.count_targets`, and
            with a meter the FLOPs that are real and that are spent.
    """

    batches: list[MicroBatch]
    counts: Int[Tensor, " counts"]


def feed(
    steps: Iterable[list[MicroBatch]],
    device: torch.device,
    objectives: Sequence[str],
    *,
    varlen: bool = False,
    meter: Meter | None = None,
) -> Iterator[Fed]:
    """Steps as they are computed.

    Args:
        objectives: the order of the counts.
        varlen: whether the batches need their boundaries.
        meter: counts FLOPs; left out, they are not among the counts.
    """
    if device.type != "cuda":
        for batches in steps:
            yield Fed(
                [one._replace(batch=_prepared(one.batch, varlen)) for one in batches],
                _count(batches, objectives, meter),
            )
        return
    stream, ahead = torch.cuda.Stream(device), None
    for batches in steps:
        counts = _count(batches, objectives, meter).pin_memory()
        with torch.cuda.stream(stream):
            moved = [
                one._replace(batch=_moved(_prepared(one.batch, varlen), device)) for one in batches
            ]
            fed = Fed(moved, counts.to(device, non_blocking=True))
            copied = stream.record_event()
        if ahead is not None:
            yield _awaited(*ahead)
        ahead = fed, copied
    if ahead is not None:
        yield _awaited(*ahead)


def _count(
    batches: Sequence[MicroBatch], objectives: Sequence[str], meter: Meter | None
) -> Int[Tensor, " counts"]:
    counts = count_targets(batches, objectives)
    if meter is None:
        return counts
    flops = [meter(one.batch) for one in batches]
    real = sum(own.real for own, one in zip(flops, batches, strict=True) if one.fingerprint)
    return torch.cat([counts, torch.tensor([real, sum(own.spent for own in flops)])])


def _prepared(batch: Batch, varlen: bool) -> Batch:
    """The batch with boundaries, its decoder's too, where they are needed."""
    if not varlen:
        return batch
    decoder = None if batch.decoder is None else _prepared(batch.decoder, varlen)
    return replace(batch, boundaries=boundaries(batch.sequence_ids), decoder=decoder)


def _moved(batch: Batch, device: torch.device) -> Batch:
    return batch.map(
        lambda tensor: (tensor if tensor.is_pinned() else tensor.pin_memory()).to(
            device, non_blocking=True
        )
    )


def _awaited(fed: Fed, copied: torch.cuda.Event) -> Fed:
    """Nothing of the step is computed before it is there, nor its memory used again too soon."""
    current = torch.cuda.current_stream()
    current.wait_event(copied)

    def used(tensor: Tensor) -> Tensor:
        tensor.record_stream(current)
        return tensor

    for one in fed.batches:
        one.batch.map(used)
    used(fed.counts)
    return fed
