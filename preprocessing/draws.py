"""Keyed random draws: a vectorised integer hash instead of generator objects.

A draw is a pure function of what it is for: ``key = (seed, purpose, epoch or copy, sequence id)``
names the sequence, ``index`` a place in it and ``draw`` the how-many-th number taken there. Nothing
depends on rank, worker, process, time or on which draws were made before.

    >>> keys = sequence_keys(seed=1, purpose="mask", epoch=0, ids=np.array([7, 8], np.uint64))
    >>> uniform(keys[:, None], np.arange(3), draw=0).shape
    (2, 3)

The hash is the finaliser of SplitMix64 (Steele, Lea and Flood, 2014), applied once for each part
of the key, so that every part passes through all 64 bits.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

UInt64 = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S11 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(11)
_INVERSE_2_53 = 2.0**-53


def mix(values: UInt64) -> UInt64:
    """SplitMix64's finaliser: a bijection of 64-bit integers in which every bit counts."""
    with np.errstate(over="ignore"):
        z = values + _GOLDEN
        z = (z ^ (z >> _S30)) * _MIX_1
        z = (z ^ (z >> _S27)) * _MIX_2
        return np.asarray(z ^ (z >> _S31), dtype=np.uint64)


def _mix_one(value: int) -> int:
    """The same of a single number; an array's overhead is a hundred times its work."""
    z = (value + int(_GOLDEN)) % 2**64
    z = ((z ^ (z >> 30)) * int(_MIX_1)) % 2**64
    z = ((z ^ (z >> 27)) * int(_MIX_2)) % 2**64
    return z ^ (z >> 31)


@functools.lru_cache(maxsize=1024)
def purpose_key(seed: int, purpose: str, *parts: int) -> np.uint64:
    """The scalar key of a purpose under a seed, refined by integers (epoch, copy, phase, ...)."""
    name = hashlib.blake2b(purpose.encode(), digest_size=8).digest()
    state = _mix_one(int.from_bytes(name, "little"))
    for part in (seed, *parts):
        state = _mix_one(state ^ part % 2**64)
    return np.uint64(state)


def sequence_keys(seed: int, purpose: str, epoch: int, ids: NDArray[Any]) -> UInt64:
    """One key a sequence: ``[n]`` from sequence ids ``[n]``."""
    return mix(purpose_key(seed, purpose, epoch) ^ ids.astype(np.uint64))


def bits(keys: UInt64, index: NDArray[Any] | int, draw: int) -> UInt64:
    """64 random bits for each (key, index), broadcast together; ``draw`` numbers the takings."""
    with np.errstate(over="ignore"):
        place = np.asarray(index, dtype=np.uint64) + np.uint64(draw) * np.uint64(1 << 40)
        return mix(mix(keys ^ place * _GOLDEN))


def uniform(keys: UInt64, index: NDArray[Any] | int, draw: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) with 53 bits."""
    return (bits(keys, index, draw) >> _S11).astype(np.float64) * _INVERSE_2_53


def integers(
    keys: UInt64, index: NDArray[Any] | int, draw: int, bound: NDArray[Any] | int
) -> NDArray[np.int64]:
    """Uniform integers in [0, bound). The bias is below bound / 2**53."""
    return (uniform(keys, index, draw) * bound).astype(np.int64)
