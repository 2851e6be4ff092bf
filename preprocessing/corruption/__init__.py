"""The corruption schemes, one file each, and the one union of their configurations.

A second member turns the union into
``Annotated[MaskedConfig | ..., pydantic.Field(discriminator="kind")]`` and adds a case below.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preprocessing.corruption.base import Corrupted, Sequences, SpecialIds
from preprocessing.corruption.masked import MaskedConfig, mask_tokens, num_targets

__all__ = [
    "Corrupted",
    "CorruptionConfig",
    "Sequences",
    "SpecialIds",
    "corrupt",
    "max_targets",
]

CorruptionConfig = MaskedConfig


def corrupt(
    config: CorruptionConfig, special: SpecialIds, sequences: Sequences, *, seed: int, epoch: int
) -> Corrupted:
    """Corrupt sequences by the configured scheme."""
    match config:
        case MaskedConfig():
            return mask_tokens(config, special, sequences, seed=seed, epoch=epoch)


def max_targets(config: CorruptionConfig, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most so many targets has a sequence of each length, ``[sequences]``."""
    match config:
        case MaskedConfig():
            return num_targets(config, lengths)
