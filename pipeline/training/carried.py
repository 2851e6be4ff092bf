"""What a model carries from step to step: the memory of streams, on the ranks that compute them.

Micro-batch m of every step holds the streams ``[m * rows, (m + 1) * rows)`` and falls to the same
rank each time, so memory stays where it is. A checkpoint brings it together by stream, and deals
it anew on any number of ranks:

    rank 0: streams 0-3, 8-11   rank 1: streams 4-7    ->  memory.safetensors: [12, ...]

A step begins with what the last applied step left, however often it is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.batch import Batch, Memory
from pipeline.training.engine import Engine


class Carried:
    """The memory of one rank's micro-batches; nothing at all for a model without any.

    Args:
        rows: of a micro-batch.
    """

    def __init__(self, engine: Engine, rows: int) -> None:
        self._engine = engine
        self._rows = rows
        initial = engine.task.model.initial_memory(rows)
        self._initial = initial and {name: t.to(engine.device) for name, t in initial.items()}
        self._kept: dict[int, Memory] = {}
        self._coming: dict[int, Memory] = {}

    @property
    def used(self) -> bool:
        """Whether the model carries anything."""
        return self._initial is not None

    @property
    def anew(self) -> bool:
        """Whether the next step has nothing to go on from, on any rank. Collective."""
        return not any(self._engine.exchange(bool(self._kept)))

    def forget(self) -> None:
        """Begin anew."""
        self._kept = {}

    def give(self, batch: Batch, number: int) -> Batch:
        """The step's micro-batch of this number with its memory."""
        if self._initial is None:
            return batch
        return replace(batch, memory=self._kept.get(number, self._initial))

    def keep(self, number: int, memory: Memory) -> None:
        """What the micro-batch of this number leaves, should its step be applied."""
        if self._initial is not None:
            self._coming[number] = memory

    def settle(self, applied: bool) -> None:
        """End a step."""
        if applied:
            self._kept = self._coming
        self._coming = {}

    def gather(self, streams: int) -> dict[str, Tensor]:
        """All memory by stream, ``[streams, ...]`` each on the CPU; empty where there is none.

        Collective; what weightless micro-batches left is of no stream.
        """
        if self._initial is None or self.anew:
            return {}
        gathered = {}
        for name in self._initial:
            own = {number: memory[name].cpu() for number, memory in self._kept.items()}
            parts = {n: part for rank in self._engine.exchange(own) for n, part in rank.items()}
            gathered[name] = torch.cat([parts[n] for n in range(streams // self._rows)])
        return gathered

    def deal(self, gathered: Mapping[str, Tensor], streams: int) -> None:
        """Take this rank's share of what :meth:`gather` gave."""
        engine = self._engine
        for number in range(engine.rank, streams // self._rows, engine.world_size):
            own = slice(number * self._rows, (number + 1) * self._rows)
            self._kept[number] = {
                name: whole[own].to(engine.device) for name, whole in gathered.items()
            }
