"""The corruption schemes, one file each, and the one union of their configurations.

A new scheme is its file, with a configuration that is a :class:`Scheme`, and a member here. From
the second on, ``CorruptionConfig`` is
``Annotated[MaskedConfig | OtherConfig, pydantic.Field(discriminator="kind")]``.
"""

from __future__ import annotations

from preprocessing.corruption.base import (
    Bounds,
    Context,
    Corrupted,
    Scheme,
    Sequences,
    Side,
    SpecialIds,
    Targets,
)
from preprocessing.corruption.masked import MaskedConfig

__all__ = [
    "Bounds",
    "Context",
    "Corrupted",
    "CorruptionConfig",
    "Scheme",
    "Sequences",
    "Side",
    "SpecialIds",
    "Targets",
]

CorruptionConfig = MaskedConfig
