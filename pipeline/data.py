"""From rows to micro-batches: what stands at which position, and processes that prepare it.

A phase is a sequence of micro-batches without end. The i-th of them is a pure function of
``(seed, phase, i)``; who asks for it, and when, makes no difference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.batch import Batch
from preprocessing.arrangement import Arrays, join
from preprocessing.corruption import CorruptionConfig
from preprocessing.order import Epochs
from preprocessing.rows import RowSet

_FINGERPRINT_BYTES = 5  # sums of a million 40-bit fingerprints fit 64 bits


class MicroBatch(NamedTuple):
    """A batch with its number in the step, and a digest of what it holds (0 if weightless)."""

    batch: Batch
    number: int
    fingerprint: int


@dataclass(frozen=True)
class RowSource:
    """The rows of one split of an examples directory, in an order.

    Attributes:
        directory, split: where the rows lie.
        corruption: what the loader does to them where they are dynamic.
        seed: of order and corruption.
        phase: key of the order; None leaves the rows in their stored order (validation).
    """

    directory: Path
    split: str
    corruption: CorruptionConfig
    seed: int
    phase: int | None

    def open(self) -> OpenRows:
        """Map the shards; to be called in the process that reads."""
        return OpenRows(self)


@dataclass(frozen=True)
class Data:
    """The rows of a run: training rows by phase, validation rows by set, and their digests."""

    phases: tuple[RowSource, ...]
    validation: Mapping[str, RowSource]
    digests: Mapping[str, str]
    tokenizer: str


class OpenRows:
    """An opened :class:`RowSource`."""

    def __init__(self, source: RowSource) -> None:
        self._source = source
        self.rows = RowSet(source.directory, source.split, seed=source.seed)
        self._epochs = (
            None
            if source.phase is None
            else Epochs(tuple(self.rows.num_rows), source.seed, source.phase)
        )

    @property
    def num_rows(self) -> int:
        """Rows of the first epoch."""
        return self.rows.num_rows[0]

    def located(
        self, positions: range
    ) -> list[tuple[int, np.ndarray[tuple[int], np.dtype[np.int64]]]]:
        """``(epoch, rows)`` at consecutive positions."""
        wanted = np.arange(positions.start, positions.stop)
        return [(0, wanted)] if self._epochs is None else self._epochs.locate(wanted)

    def arrays(self, positions: range) -> Arrays:
        """The micro-batch at consecutive positions."""
        return join(
            [
                self.rows.arrays(self._source.corruption, rows, epoch=epoch)
                for epoch, rows in self.located(positions)
            ]
        )


class Work(NamedTuple):
    """One micro-batch to prepare: its positions, its number in the step, and whether it counts."""

    positions: range
    number: int
    counts: bool


class _WorkDataset(Dataset[MicroBatch]):
    def __init__(self, source: RowSource) -> None:
        self._source = source
        self._rows: OpenRows | None = None

    def __getitem__(self, work: Work) -> MicroBatch:
        if self._rows is None:  # opened in the worker: maps are not inherited
            self._rows = self._source.open()
        arrays = self._rows.arrays(work.positions)
        batch = to_batch(arrays)
        if not work.counts:
            return MicroBatch(batch.weightless(), work.number, 0)
        return MicroBatch(batch, work.number, fingerprint(arrays))


@dataclass(frozen=True)
class Deal:
    """The work of one rank, step after step.

    The M micro-batches of a step are numbered globally; number m goes to rank ``m % world_size``.
    Where M does not divide, some ranks get weightless ones, so that every rank does equal work.

        M = 3, two ranks:   rank 0 gets 0, 2     rank 1 gets 1, and a weightless one

    Attributes:
        first_position: of the first step's first row, in its phase.
        steps: of ``batch_rows`` rows each.
    """

    first_position: int
    steps: int
    batch_rows: int
    micro_batch_rows: int
    rank: int
    world_size: int

    @property
    def rounds(self) -> int:
        """Micro-batches of a rank in a step."""
        return -(-(self.batch_rows // self.micro_batch_rows) // self.world_size)

    def __iter__(self) -> Iterator[Work]:
        num_micro_batches = self.batch_rows // self.micro_batch_rows
        for step in range(self.steps):
            first = self.first_position + step * self.batch_rows
            for turn in range(self.rounds):
                number = turn * self.world_size + self.rank
                counts = number < num_micro_batches
                begin = first + (number if counts else 0) * self.micro_batch_rows
                yield Work(range(begin, begin + self.micro_batch_rows), number, counts)


def load(source: RowSource, deal: Deal, *, workers: int, pin: bool) -> Iterator[list[MicroBatch]]:
    """Prepare micro-batches, a list a step, ahead of their use in ``workers`` processes."""
    loader: DataLoader[MicroBatch] = DataLoader(
        _WorkDataset(source),
        sampler=deal,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=pin,
        multiprocessing_context="spawn" if workers else None,
    )
    batches = iter(loader)
    for _ in range(deal.steps):
        yield [next(batches) for _ in range(deal.rounds)]


def to_batch(arrays: Arrays) -> Batch:
    """Arrays as tensors; nothing is copied."""
    return Batch.from_named(
        {name: torch.from_numpy(values) for name, values in arrays.named().items()}
    )


def fingerprint(arrays: Arrays) -> int:
    """A digest of everything a micro-batch holds; sums over a step do not depend on the dealing."""
    state = hashlib.blake2b(digest_size=_FINGERPRINT_BYTES)
    named = arrays.named()
    for name in ("ids", "sequence_ids", "segment_ids"):
        state.update(np.ascontiguousarray(named.pop(name)).data)
    del named["positions"]
    for name in sorted(named, key=_by_objective):
        state.update(np.ascontiguousarray(named[name]).data)
    return int.from_bytes(state.digest(), "little")


def _by_objective(name: str) -> tuple[str, ...]:
    """Targets in the order of their objectives, then everything else."""
    return tuple(name.replace("decoder_targets/", "targets/").split("/"))


def count_targets(batches: Sequence[MicroBatch], names: Sequence[str]) -> Tensor:
    """``[objectives + 3]`` int64: targets by objective, real tokens, all tokens, fingerprint."""
    counts = torch.zeros(len(names) + 3, dtype=torch.int64)
    for batch, _, digest in batches:
        for index, name in enumerate(names):
            counts[index] += (batch.targets[name].labels >= 0).sum()
        if digest:
            counts[-3] += (batch.sequence_ids > 0).sum()
            counts[-2] += batch.ids.numel()
            counts[-1] += digest
    return counts
