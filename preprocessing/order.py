"""The shuffled order of an epoch in O(1): a keyed permutation of [0, n) without an index array.

A Feistel network permutes the smallest power of four that holds ``n``; whatever falls outside
[0, n) is sent through again until it falls inside (cycle-walking, Black and Rogaway, 2002), fewer
than four times on average. Any position of any epoch is found without touching another one.

    >>> order = Order(5, key=purpose_key(0, "order", 0))
    >>> sorted(order(np.arange(5)).tolist())
    [0, 1, 2, 3, 4]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocessing.draws import mix, purpose_key

_ROUNDS = 8


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
        items = positions.astype(np.uint64)
        outside = np.ones(items.shape, dtype=bool)
        while outside.any():
            items[outside] = self._encrypt(items[outside])
            outside = items >= np.uint64(self.size)
        return items.astype(np.int64)

    def _encrypt(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        half = np.uint64(max(1, ((self.size - 1).bit_length() + 1) // 2))
        mask = np.uint64((1 << int(half)) - 1)
        left, right = values >> half, values & mask
        for number in range(_ROUNDS):
            round_key = mix(np.asarray(self.key ^ np.uint64(number), dtype=np.uint64))
            left, right = right, left ^ (mix(mix(right ^ round_key)) & mask)
        return (left << half) | right


@dataclass(frozen=True)
class Epochs:
    """Where a position of a phase lies: positions count rows, epoch after epoch, without end.

    Epoch e goes once through copy ``e % len(rows_per_copy)`` of the rows, in an order of its own.

    Attributes:
        rows_per_copy: rows of each copy.
        seed, phase, source: with the epoch, the key of an order.
    """

    rows_per_copy: tuple[int, ...]
    seed: int
    phase: int
    source: int = 0

    def locate(self, positions: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
        """``(epoch, rows)`` for ascending positions: mostly one pair, more across epochs' ends."""
        epochs, within = self.split(positions)
        located = []
        for epoch in np.unique(epochs).tolist():
            size = self.rows_per_copy[epoch % len(self.rows_per_copy)]
            order = Order(size, purpose_key(self.seed, "order", self.phase, self.source, epoch))
            located.append((epoch, order(within[epochs == epoch])))
        return located

    def split(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Epoch, and position within the epoch, of each position."""
        ends = np.cumsum(self.rows_per_copy)
        rounds, rest = np.divmod(np.asarray(positions, dtype=np.int64), int(ends[-1]))
        copy = np.searchsorted(ends, rest, side="right")
        epochs = rounds * len(ends) + copy
        return epochs, rest - np.concatenate([[0], ends])[copy]
