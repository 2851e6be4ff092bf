"""Layouts, one file each: how documents are cut into training sequences.

A new layout is its file, with a configuration that is a :class:`Layout`, and a member here.
"""

from __future__ import annotations

from typing import Annotated

import pydantic

from preprocessing.layouts.base import Layout
from preprocessing.layouts.blocks import BlocksConfig
from preprocessing.layouts.pairs import PairsConfig

__all__ = ["BlocksConfig", "Layout", "LayoutConfig", "PairsConfig"]

LayoutConfig = Annotated[PairsConfig | BlocksConfig, pydantic.Field(discriminator="kind")]
