"""What loops over sequences share."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from preprocessing.compiled import compiled
from preprocessing.kernels.picking import INT64


@compiled(numba.int64(INT64))
def longest(offsets: NDArray[np.int64]) -> int:
    """Tokens of the longest sequence."""
    most = 0
    for number in range(len(offsets) - 1):
        most = max(most, offsets[number + 1] - offsets[number])
    return most


@compiled(numba.boolean(INT64, numba.int64))
def is_in(ids: NDArray[np.int64], token: int) -> bool:
    """Whether a token is one of a few."""
    found = False
    for one in ids:
        found |= one == token
    return found
