"""From rows to micro-batches: what stands at which position, and processes that prepare it.

A phase is a sequence of micro-batches without end. The i-th of them is a pure function of
``(seed, phase, i)``; who asks for it, and when, makes no difference.
"""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.batch import Batch
from pipeline.phases import TaskOrder
from preprocessing.arrangement import IGNORED, Arrays, Shape, TargetArrays, interleave
from preprocessing.block_cache import BlockCache
from preprocessing.corruption import CorruptionConfig
from preprocessing.order import Epochs, Interleave, StreamOrder, Windows
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
        streams: how many streams the rows are read as; None where they are shuffled.
        window: record batches that are shuffled among each other; None for all rows.
        cache: where blocks of far-away shards are kept.
        number: among the sources of its phase, in the key of the order.
        shape: of the arrays, where it is not the set's own.
        wanted: the objectives that are trained: other targets are left out; None takes all.
        absent: targets by name that other rows have, and these have none of: an empty one each.
        bucket: the length of the set's shorter rows, where they are meant.
        name: of the examples set.
    """

    directory: Path
    split: str
    corruption: CorruptionConfig
    seed: int
    phase: int | None
    streams: int | None = None
    window: int | None = None
    cache: BlockCache | None = None
    number: int = 0
    shape: Shape | None = None
    wanted: frozenset[str] | None = None
    absent: Mapping[str, TargetArrays] = field(default_factory=dict)
    bucket: int | None = None
    name: str = ""

    @property
    def sets(self) -> tuple[RowSource, ...]:
        """The examples sets it reads."""
        return (self,)

    def objectives(self, step: int) -> frozenset[str] | None:
        """What a step of the phase trains; None for everything."""
        return None

    def open(self) -> OpenRows:
        """Map the shards; to be called in the process that reads."""
        return OpenRows(self)


@dataclass(frozen=True)
class MixedSource:
    """The rows of several sources, each with its share in every block of positions."""

    sets: tuple[RowSource, ...]
    order: Interleave

    def objectives(self, step: int) -> frozenset[str] | None:
        """What a step of the phase trains; None for everything."""
        return None

    def open(self) -> OpenMixture:
        """Map the shards; to be called in the process that reads."""
        return OpenMixture(self)


@dataclass(frozen=True)
class TaskSource:
    """The rows of several tasks, one task a step; a task may be the rows of one length of a set.

    Attributes:
        sets: the rows of each task.
        names: of the tasks.
        trained: the objectives of each task; None for everything.
        order: which task a step has.
        rows_at: how many rows of each task stand at one position; left out, one.
    """

    sets: tuple[RowSource, ...]
    names: tuple[str, ...]
    trained: tuple[frozenset[str] | None, ...]
    order: TaskOrder
    rows_at: tuple[int, ...] = ()

    def objectives(self, step: int) -> frozenset[str] | None:
        """What a step of the phase trains; None for everything."""
        return self.trained[self.order.task(step)]

    def open(self) -> OpenTasks:
        """Map the shards; to be called in the process that reads."""
        return OpenTasks(self)


Source: TypeAlias = RowSource | MixedSource | TaskSource
"""Where the rows of a phase come from."""

DIGEST_OF_ROWS = "rows:"
"""What digests of rows begin with; those of manifests, which were taken before, do not."""


@dataclass(frozen=True)
class Data:
    """The rows of a run: training rows by phase, validation rows by set, and their digests.

    Attributes:
        digests: of all that is read in each phase.
        manifests: digests of the phases' manifests, which is what checkpoints held before.
    """

    phases: tuple[Source, ...]
    validation: Mapping[str, RowSource]
    digests: Mapping[str, str]
    manifests: Mapping[str, str]
    tokenizer: str

    @property
    def directories(self) -> tuple[Path, ...]:
        """Where the examples sets are read from, each once."""
        every = (one.directory for source in self.phases for one in source.sets)
        return tuple(dict.fromkeys(every))

    def digests_like(self, recorded: Mapping[str, str]) -> dict[str, str | None]:
        """The digest of each phase in the form that a checkpoint recorded it in."""
        return {
            phase: self.digests.get(phase)
            if digest.startswith(DIGEST_OF_ROWS)
            else self.manifests.get(phase)
            for phase, digest in recorded.items()
        }


class Found(NamedTuple):
    """Rows of one examples set in one epoch, and which rows of the micro-batch they are."""

    of: OpenRows
    epoch: int
    rows: NDArray[np.int64]
    places: NDArray[np.int64]


class Reader(abc.ABC):
    """An opened source."""

    @abc.abstractmethod
    def find(self, positions: NDArray[np.int64]) -> list[Found]:
        """The rows at ascending positions of a step."""

    def arrays(self, positions: range) -> Arrays:
        """The micro-batch at consecutive positions of a step."""
        found = self.find(np.arange(positions.start, positions.stop))
        return interleave(
            [one.of.read(one.rows, one.epoch) for one in found], [one.places for one in found]
        )


class OpenRows(Reader):
    """An opened :class:`RowSource`."""

    def __init__(self, source: RowSource) -> None:
        self.source = source
        self.rows = RowSet(
            source.directory,
            source.split,
            seed=source.seed,
            bucket=source.bucket,
            cache=source.cache,
        )
        self._epochs: Epochs | StreamOrder | None = None
        if source.phase is not None:
            rows, per_batch = tuple(self.rows.num_rows), self.rows.rows_per_batch
            windows = Windows(per_batch, source.window) if source.window else None
            self._epochs = (
                Epochs(rows, source.seed, source.phase, source.number, windows)
                if source.streams is None
                else StreamOrder(rows, source.streams, source.seed, source.phase)
            )

    @property
    def num_rows(self) -> int:
        """Rows of the first epoch."""
        return self.rows.num_rows[0]

    def find(self, positions: NDArray[np.int64]) -> list[Found]:
        """The rows at ascending positions."""
        located = [(0, positions)] if self._epochs is None else self._epochs.locate(positions)
        ends = np.cumsum([0, *(len(rows) for _, rows in located)]).tolist()
        return [
            Found(self, epoch, rows, np.arange(end - len(rows), end))
            for (epoch, rows), end in zip(located, ends[1:], strict=True)
        ]

    def read(self, rows: NDArray[np.int64], epoch: int) -> Arrays:
        """Rows ``[rows]`` in an epoch, with all the targets that other rows of the phase have."""
        own = self.source
        arrays = self.rows.arrays(own.corruption, rows, epoch=epoch, shape=own.shape)
        empty = {name: _without_target(like, len(rows)) for name, like in own.absent.items()}
        targets = {**arrays.targets, **empty}
        kept = targets.keys() if own.wanted is None else targets.keys() & own.wanted
        return replace(arrays, targets={name: targets[name] for name in targets if name in kept})

    def begins(self, position: int) -> bool:
        """Whether the streams begin anew with the step whose first row stands at ``position``."""
        return isinstance(self._epochs, StreamOrder) and self._epochs.begins(position)


def _without_target(like: TargetArrays, count: int) -> TargetArrays:
    """So many targets of a kind, all of them padding."""
    return TargetArrays(
        np.zeros(count, dtype=np.int64),
        np.full(count, IGNORED, dtype=np.int64),
        {name: np.zeros(count, dtype=values.dtype) for name, values in like.extra.items()},
        like.of_decoder,
    )


class OpenMixture(Reader):
    """An opened :class:`MixedSource`."""

    def __init__(self, source: MixedSource) -> None:
        self._order = source.order
        self._sets = [one.open() for one in source.sets]

    def find(self, positions: NDArray[np.int64]) -> list[Found]:
        """The rows at ascending positions."""
        sources, indices = self._order.locate(positions)
        places = [np.flatnonzero(sources == number) for number in range(len(self._sets))]
        return [
            found._replace(places=own[found.places])
            for rows, own in zip(self._sets, places, strict=True)
            if len(own)
            for found in rows.find(indices[own])
        ]


class OpenTasks(Reader):
    """An opened :class:`TaskSource`."""

    def __init__(self, source: TaskSource) -> None:
        self._order = source.order
        self._rows_at = source.rows_at or (1,) * len(source.sets)
        self._sets = [one.open() for one in source.sets]

    def find(self, positions: NDArray[np.int64]) -> list[Found]:
        """The rows at consecutive positions of one step."""
        task, first = self._order.find(int(positions[0]))
        own = self._rows_at[task]
        return self._sets[task].find(own * first + np.arange(own * len(positions)))


class Work(NamedTuple):
    """One micro-batch to prepare: its positions, its number in the step, and whether it counts."""

    positions: range
    number: int
    counts: bool


class _WorkDataset(Dataset[MicroBatch]):
    def __init__(self, source: Source) -> None:
        self._source = source
        self._rows: Reader | None = None

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


def load(source: Source, deal: Deal, *, workers: int, pin: bool) -> Iterator[list[MicroBatch]]:
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
