"""The corruption schemes, one file each, and the one union of their configurations.

A new scheme is its file, with a configuration that is a :class:`Scheme`, and a member here.
"""

from __future__ import annotations

from typing import Annotated

import pydantic

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
from preprocessing.corruption.bidirectional import BidirectionalConfig
from preprocessing.corruption.causal import CausalConfig
from preprocessing.corruption.dropping import DropTokensConfig
from preprocessing.corruption.every import EveryConfig
from preprocessing.corruption.infilling import InfillingConfig
from preprocessing.corruption.labelled import LabelledConfig
from preprocessing.corruption.masked import MaskedConfig
from preprocessing.corruption.ngrams import NgramsConfig
from preprocessing.corruption.permutation import PermutationConfig
from preprocessing.corruption.prefix import PrefixConfig
from preprocessing.corruption.prefix_denoising import PrefixDenoisingConfig
from preprocessing.corruption.replaced import ReplacedConfig
from preprocessing.corruption.similar import SimilarConfig
from preprocessing.corruption.smoothed import SmoothedConfig
from preprocessing.corruption.span_corruption import SpanCorruptionConfig
from preprocessing.corruption.spans import SpansConfig
from preprocessing.corruption.unilm import UnilmConfig
from preprocessing.corruption.units import UnitsConfig
from preprocessing.corruption.whole_word import WholeWordConfig
from preprocessing.corruption.windows import WindowsConfig

__all__ = [
    "BidirectionalConfig",
    "Bounds",
    "CausalConfig",
    "Context",
    "Corrupted",
    "CorruptionConfig",
    "DropTokensConfig",
    "EveryConfig",
    "InfillingConfig",
    "LabelledConfig",
    "MaskedConfig",
    "NgramsConfig",
    "PermutationConfig",
    "PrefixConfig",
    "PrefixDenoisingConfig",
    "ReplacedConfig",
    "Scheme",
    "Sequences",
    "Side",
    "SimilarConfig",
    "SmoothedConfig",
    "SpanCorruptionConfig",
    "SpansConfig",
    "SpecialIds",
    "Targets",
    "UnilmConfig",
    "UnitsConfig",
    "WholeWordConfig",
    "WindowsConfig",
]

CorruptionConfig = Annotated[
    BidirectionalConfig
    | CausalConfig
    | DropTokensConfig
    | EveryConfig
    | InfillingConfig
    | LabelledConfig
    | MaskedConfig
    | NgramsConfig
    | PermutationConfig
    | PrefixConfig
    | PrefixDenoisingConfig
    | ReplacedConfig
    | SimilarConfig
    | SmoothedConfig
    | SpanCorruptionConfig
    | SpansConfig
    | UnilmConfig
    | UnitsConfig
    | WholeWordConfig
    | WindowsConfig,
    pydantic.Field(discriminator="kind"),
]
