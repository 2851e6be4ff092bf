"""The draws of :mod:`preprocessing.draws` one by one, for compiled functions: the same numbers."""

from __future__ import annotations

import numba
import numpy as np

from preprocessing.compiled import compiled

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S11 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(11)
_S40 = np.uint64(40)
_INVERSE_2_53 = 2.0**-53


@compiled(numba.uint64(numba.uint64))
def mix(value: np.uint64) -> np.uint64:
    """SplitMix64's finaliser, as :func:`preprocessing.draws.mix`."""
    value += _GOLDEN
    value = (value ^ (value >> _S30)) * _MIX_1
    value = (value ^ (value >> _S27)) * _MIX_2
    return np.uint64(value ^ (value >> _S31))


@compiled(numba.uint64(numba.uint64, numba.int64, numba.int64))
def bits_at(key: np.uint64, index: int, draw: int) -> np.uint64:
    """64 random bits, as :func:`preprocessing.draws.bits` gives them."""
    place = np.uint64(index) + (np.uint64(draw) << _S40)
    return np.uint64(mix(mix(key ^ (place * _GOLDEN))))


@compiled(numba.float64(numba.uint64, numba.int64, numba.int64))
def uniform_at(key: np.uint64, index: int, draw: int) -> float:
    """A number in [0, 1), as :func:`preprocessing.draws.uniform` gives it."""
    return float(np.float64(bits_at(key, index, draw) >> _S11) * _INVERSE_2_53)


@compiled(numba.int64(numba.uint64, numba.int64, numba.int64, numba.int64))
def integer_at(key: np.uint64, index: int, draw: int, bound: int) -> int:
    """An integer in [0, bound), as :func:`preprocessing.draws.integers` gives it."""
    return int(uniform_at(key, index, draw) * bound)
