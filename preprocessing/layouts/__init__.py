"""Layouts, one file each: how documents are cut into training sequences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import pydantic

from preprocessing.layouts.blocks import BlocksConfig, cut_blocks
from preprocessing.layouts.pairs import PairsConfig, cut_pairs

if TYPE_CHECKING:
    from preprocessing.layouts.base import Cut
    from preprocessing.tokens import TokenStore

__all__ = ["BlocksConfig", "LayoutConfig", "PairsConfig", "cut_documents"]

LayoutConfig = Annotated[PairsConfig | BlocksConfig, pydantic.Field(discriminator="kind")]


def cut_documents(
    config: PairsConfig | BlocksConfig,
    store: TokenStore,
    documents: range,
    length: int,
    *,
    seed: int,
    copy: int,
) -> Cut:
    """Cut a range of documents into sequences of at most ``length`` tokens."""
    match config:
        case PairsConfig():
            return cut_pairs(config, store, documents, length, seed=seed, copy=copy)
        case BlocksConfig():
            return cut_blocks(store, documents, length)
