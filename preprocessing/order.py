"""The shuffled order of an epoch in O(1): a keyed permutation of [0, n) without an index array.

A Feistel network permutes the smallest power of four that holds ``n``; whatever falls outside
[0, n) is sent through again until it falls inside (cycle-walking, Black and Rogaway, 2002), fewer
than four times on average. Any position of any epoch is found without touching another one.

    >>> order = Order(5, key=purpose_key(0, "order", 0))
    >>> sorted(order(np.arange(5)).tolist())
    [0, 1, 2, 3, 4]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from preprocessing.draws import mix, purpose_key

BLOCK = 1024
"""Positions in which every source of a mixture has its share, where nothing else is said."""


@dataclass(frozen=True)
class Order:
    """A permutation of [0, size) chosen by ``key``."""

    size: int
    key: np.uint64

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Items ``[n]`` at the given positions ``[n]`` (0 <= position < size)."""
        positions = np.asarray(positions, dtype=np.int64)
        if positions.size and (positions.min() < 0 or positions.max() >= self.size):
            raise ValueError(f"a position outside [0, {self.size})")
        if self.size <= 1:
            return np.zeros_like(positions)
        from preprocessing.kernels.order import permute

        return np.asarray(permute(self.size, self.key, positions))


@dataclass(frozen=True)
class WindowedOrder:
    """A permutation of [0, size) in two levels, for rows that lie far away.

    Blocks of neighbouring items stand in a keyed order, and so many of them at a time are a window,
    within which all items are shuffled: whoever goes through the positions needs one window of
    blocks at a time. The last items, which fill no block, come last.

        size 11, blocks of 2 items, windows of 2 blocks, key 7: the blocks stand as 4 0  3 2  1
        position   0 1 2 3   4 5 6 7   8 9   10
        item       1 9 0 8   4 7 5 6   3 2   10

    Attributes:
        block: items of a block.
        window: blocks of a window.
    """

    size: int
    key: np.uint64
    block: int
    window: int

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Items ``[n]`` at the given positions ``[n]`` (0 <= position < size)."""
        positions = np.asarray(positions, dtype=np.int64)
        num_blocks = self.size // self.block
        windows = np.minimum(positions, num_blocks * self.block) // (self.block * self.window)
        items = np.empty_like(positions)
        for number in np.unique(windows).tolist():
            own = windows == number
            first = number * self.window
            blocks = min(self.window, num_blocks - first)
            within = positions[own] - first * self.block
            inside = within < blocks * self.block
            places = within.copy()
            places[inside] = Order(blocks * self.block, self._key(number))(within[inside])
            block, rest = np.divmod(places[inside], self.block)
            stored = Order(num_blocks, self.key)(first + block) if num_blocks else block
            places[inside] = stored * self.block + rest
            places[~inside] += first * self.block
            items[own] = places
        return items

    def _key(self, window: int) -> np.uint64:
        return np.uint64(mix(np.asarray(self.key ^ np.uint64(window + 1), dtype=np.uint64)))


@dataclass(frozen=True)
class Windows:
    """How large are the blocks and the windows of a :class:`WindowedOrder`."""

    block: int
    window: int


@dataclass(frozen=True)
class Epochs:
    """Where a position of a phase lies: positions count rows, epoch after epoch, without end.

    Epoch e goes once through copy ``e % len(rows_per_copy)`` of the rows, in an order of its own.

    Attributes:
        rows_per_copy: rows of each copy.
        seed, phase, source: with the epoch, the key of an order.
        windows: of an order in two levels; None for one in which any row may stand anywhere.
    """

    rows_per_copy: tuple[int, ...]
    seed: int
    phase: int
    source: int = 0
    windows: Windows | None = None

    def locate(self, positions: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
        """``(epoch, rows)`` for ascending positions: mostly one pair, more across epochs' ends."""
        epochs, within = self.split(positions)
        located = []
        for epoch in np.unique(epochs).tolist():
            size = self.rows_per_copy[epoch % len(self.rows_per_copy)]
            key = purpose_key(self.seed, "order", self.phase, self.source, epoch)
            order = (
                WindowedOrder(size, key, self.windows.block, self.windows.window)
                if self.windows
                else Order(size, key)
            )
            located.append((epoch, order(within[epochs == epoch])))
        return located

    def split(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Epoch, and position within the epoch, of each position."""
        ends = np.cumsum(self.rows_per_copy)
        rounds, rest = np.divmod(np.asarray(positions, dtype=np.int64), int(ends[-1]))
        copy = np.searchsorted(ends, rest, side="right")
        epochs = rounds * len(ends) + copy
        return epochs, rest - np.concatenate([[0], ends])[copy]


@dataclass(frozen=True)
class StreamOrder:
    """Where a position of a phase lies that is read as streams, of which ``t * streams + s`` is the
    t-th row of stream s.

    In each epoch the rows are cut into as many segments as there are streams, all of one length;
    a stream reads the one that a keyed permutation gives it, from its first row to its last. The
    rows that do not divide are left unread, at keyed places, so that others are in every epoch.

        8 rows, 3 streams, seed 1: rows 6 and 7 are left out, then rows 0 and 7
        position    0  1  2  3  4  5      6  7  8  9 10 11
        stream      0  1  2  0  1  2      0  1  2  0  1  2
        row         4  0  2  5  1  3      1  5  3  2  6  4

    Attributes:
        rows_per_copy: rows of each copy, in the order of their text.
        streams: how many are read side by side.
        seed, phase, source: with the epoch, the key of the segments.
    """

    rows_per_copy: tuple[int, ...]
    streams: int
    seed: int
    phase: int
    source: int = 0

    def __post_init__(self) -> None:
        if min(self.rows_per_copy) < self.streams:
            raise ValueError(f"{min(self.rows_per_copy)} rows for {self.streams} streams")

    def locate(self, positions: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
        """``(epoch, rows)`` for ascending positions, as :meth:`Epochs.locate`."""
        epochs, within = self._epochs.split(positions)
        located = []
        for epoch in np.unique(epochs).tolist():
            turns, streams = np.divmod(within[epochs == epoch], self.streams)
            rows = self.rows_per_copy[epoch % len(self.rows_per_copy)]
            length, rest = divmod(rows, self.streams)
            keys = [
                purpose_key(self.seed, purpose, self.phase, self.source, epoch)
                for purpose in ("streams", "streams begin")
            ]
            begin = int(Order(rest + 1, keys[1])(np.zeros(1, dtype=np.int64))[0])
            located.append((epoch, begin + Order(self.streams, keys[0])(streams) * length + turns))
        return located

    def begins(self, position: int) -> bool:
        """Whether new segments begin with the step whose first row stands at ``position``.

        What follows there has nothing to do with what the streams read before.
        """
        return int(self._epochs.split(np.array([position]))[1][0]) < self.streams

    @property
    def _epochs(self) -> Epochs:
        read = tuple(rows // self.streams * self.streams for rows in self.rows_per_copy)
        return Epochs(read, self.seed, self.phase, self.source)


def whole_shares(weights: Sequence[float], total: int) -> tuple[int, ...]:
    """Whole numbers that sum up to ``total``, in proportion to the weights (largest remainder).

    Ties go to the earlier one.

    >>> whole_shares((0.5, 0.3, 0.2), 7)
    (4, 2, 1)
    """
    exact = [total * weight / sum(weights) for weight in weights]
    counts = [int(share) for share in exact]
    nearest = sorted(range(len(exact)), key=lambda index: counts[index] - exact[index])
    for index in nearest[: total - sum(counts)]:
        counts[index] += 1
    return tuple(counts)


@dataclass(frozen=True)
class Interleave:
    """Which of several sources stands at a position, and which of its items.

    Every block of positions holds a fixed number of each source, in a keyed order of its own.
    Within a source the items follow each other as the positions do, so that how many of them
    stand before any position is arithmetic.

        counts (2, 1), so blocks of 3; key purpose_key(0, "mixture", 9)
        position   0  1  2    3  4  5    6  7  8
        source     0  1  0    1  0  0    0  0  1
        index      0  0  1    1  2  3    4  5  2

    Attributes:
        counts: of each source in a block (:func:`whole_shares`).
        key: with the number of the block, that of its order.
    """

    counts: tuple[int, ...]
    key: np.uint64

    @property
    def block(self) -> int:
        """Positions of a block."""
        return sum(self.counts)

    def locate(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Source ``[n]`` at each of some positions ``[n]``, and index ``[n]`` within the source."""
        blocks, within = np.divmod(np.asarray(positions, dtype=np.int64), self.block)
        sources, ranks = np.empty_like(within), np.empty_like(within)
        for block in np.unique(blocks).tolist():
            own = blocks == block
            of_block, rank_of = _block(self.counts, self.key, block)
            sources[own], ranks[own] = of_block[within[own]], rank_of[within[own]]
        return sources, blocks * np.array(self.counts)[sources] + ranks

    def count(self, source: int, position: int) -> int:
        """Items of a source before a position: the index of its next one."""
        block, within = divmod(position, self.block)
        before = int(np.count_nonzero(_block(self.counts, self.key, block)[0][:within] == source))
        return block * self.counts[source] + before


@lru_cache(maxsize=64)
def _block(
    counts: tuple[int, ...], key: np.uint64, number: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The source at each position of a block, and its rank among those of the same source."""
    size = sum(counts)
    own_key = np.uint64(mix(np.asarray(key ^ np.uint64(number), dtype=np.uint64)))
    places = Order(size, own_key)(np.arange(size))
    sources = np.repeat(np.arange(len(counts)), counts)[places]
    ranks = np.empty(size, dtype=np.int64)
    by_source = np.argsort(sources, kind="stable")
    ranks[by_source] = np.concatenate([np.arange(count) for count in counts])
    return sources, ranks
