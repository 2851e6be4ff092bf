"""What every corruption scheme takes and gives: sequences inside rows, corrupted in place.

tokens     [CLS] a b [SEP]  [CLS] c [SEP]  [PAD]        one row, flattened
starts         0                4                       where its sequences start
lengths        4                3
keys           k0               k1                      one key a sequence (draws.py)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.draws import UInt64, sequence_keys


@dataclass(frozen=True)
class SpecialIds:
    """What a corruption must know of a vocabulary."""

    size: int
    pad: int
    start: int
    separator: int
    mask: int


@dataclass(frozen=True)
class Sequences:
    """Whole sequences lying in a flat array of tokens.

    Attributes:
        tokens: ids ``[tokens]``, padding included.
        starts: where each sequence starts in ``tokens``, ``[sequences]``.
        lengths: tokens of each sequence, ``[sequences]``.
        ids: global sequence ids, ``[sequences]``.
    """

    tokens: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    ids: UInt64

    def keys(self, seed: int, purpose: str, epoch: int) -> UInt64:
        """One key a sequence for the draws of a purpose, ``[sequences]``."""
        return sequence_keys(seed, purpose, epoch, self.ids)


@dataclass(frozen=True)
class Corrupted:
    """The corrupted tokens and what stood there.

    Attributes:
        tokens: ids ``[tokens]``.
        target_places: places in ``tokens``, ascending, ``[targets]``.
        target_ids: the original ids, ``[targets]``.
    """

    tokens: NDArray[np.int64]
    target_places: NDArray[np.int64]
    target_ids: NDArray[Any]
