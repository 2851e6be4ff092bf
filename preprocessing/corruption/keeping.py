"""The schemes that leave every token at its place: others may be put before or around them."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import pydantic

from preprocessing.corruption.masked import MaskedConfig
from preprocessing.corruption.ngrams import NgramsConfig
from preprocessing.corruption.replaced import ReplacedConfig
from preprocessing.corruption.similar import SimilarConfig
from preprocessing.corruption.smoothed import SmoothedConfig
from preprocessing.corruption.spans import SpansConfig
from preprocessing.corruption.unilm import UnilmConfig
from preprocessing.corruption.units import UnitsConfig
from preprocessing.corruption.whole_word import WholeWordConfig
from preprocessing.corruption.windows import WindowsConfig

KeepsPlaces: TypeAlias = Annotated[
    MaskedConfig
    | NgramsConfig
    | ReplacedConfig
    | SimilarConfig
    | SmoothedConfig
    | SpansConfig
    | UnilmConfig
    | UnitsConfig
    | WholeWordConfig
    | WindowsConfig,
    pydantic.Field(discriminator="kind"),
]
"""The configuration of one of them."""
