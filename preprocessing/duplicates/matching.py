"""Which documents repeat an earlier one, among records that share keys.

*Earlier* is an order of ranks (see :mod:`preprocessing.stages.matches`), not of files. Everything
here looks at whole buckets of equal keys, so that no result depends on how many partitions the
keys were dealt to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_LEADERS = 64
"""How many documents of one bucket that nothing earlier in it resembles the others are compared
with: a bucket of n documents costs at most 64 n comparisons, not n² / 2."""

_PAIRS_AT_ONCE = 8192


@dataclass(frozen=True)
class Matches:
    """Documents that repeat others, as indices into the records given.

    Attributes:
        repeated: the later one of each pair ``[n]``.
        kept: the earlier one ``[n]``.
        similarity: estimated Jaccard similarity ``[n]``.
    """

    repeated: NDArray[np.int64]
    kept: NDArray[np.int64]
    similarity: NDArray[np.float64]


def exact_matches(
    key: NDArray[np.uint64], rest: NDArray[np.uint64], rank: NDArray[np.uint64]
) -> Matches:
    """Every document whose id ``(key, rest)`` an earlier one has, with the first of them."""
    order = np.lexsort((rank, rest, key))
    new = np.ones(len(order), np.bool_)
    new[1:] = (key[order][1:] != key[order][:-1]) | (rest[order][1:] != rest[order][:-1])
    first = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]
    return Matches(order[~new], first[~new], np.ones(int((~new).sum())))


def shared(key: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The records whose key another one has too, ordered by key."""
    order = np.argsort(key, kind="stable")
    again = np.zeros(len(key) + 1, np.bool_)  # whether each has the key of the one before it
    again[1 : len(key)] = key[order][1:] == key[order][:-1]
    return order[again[:-1] | again[1:]]


def near_matches(
    key: NDArray[np.uint64],
    rank: NDArray[np.uint64],
    similarity: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]],
    threshold: float,
) -> Matches:
    """Documents of one bucket as similar as the threshold to an earlier *leader* of it.

    The bucket's first document leads; of those that are not similar to it the first leads next,
    and so on, for :data:`MOST_LEADERS` rounds. A document that repeats another never leads.
    """
    left = np.lexsort((rank, key))
    repeated, kept, values = [], [], []
    for _ in range(MOST_LEADERS):
        _, first, bucket = np.unique(key[left], return_index=True, return_inverse=True)
        follows = np.ones(len(left), np.bool_)
        follows[first] = False
        left, leaders = left[follows], left[first][bucket[follows]]
        if not len(left):
            break
        value = np.concatenate(
            [
                similarity(left[start : start + _PAIRS_AT_ONCE], leaders[start:][:_PAIRS_AT_ONCE])
                for start in range(0, len(left), _PAIRS_AT_ONCE)
            ]
        )
        similar = value >= threshold
        repeated.append(left[similar])
        kept.append(leaders[similar])
        values.append(value[similar])
        left = left[~similar]
    if not repeated:
        nothing = np.zeros(0, np.int64)
        return Matches(nothing, nothing, np.zeros(0))
    return Matches(np.concatenate(repeated), np.concatenate(kept), np.concatenate(values))
