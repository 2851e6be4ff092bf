"""The objectives: one file each, and the one list of them all.

A new objective is its file, a member of ``ObjectiveConfig``, and a case of ``build_objective``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeAlias, assert_never

from pydantic import Field

from configs.schema import ConfigError
from pipeline.objectives.base import Loss, Objective
from pipeline.objectives.classification import Classification, ClassificationConfig
from pipeline.objectives.masked_lm import MaskedLM, MaskedLMConfig
from pipeline.objectives.next_sentence import NextSentence, NextSentenceConfig
from pipeline.objectives.span_boundary import SpanBoundary, SpanBoundaryConfig

__all__ = ["Loss", "Objective", "ObjectiveConfig", "build_objective", "build_objectives"]

ObjectiveConfig: TypeAlias = Annotated[
    ClassificationConfig | MaskedLMConfig | NextSentenceConfig | SpanBoundaryConfig,
    Field(discriminator="kind"),
]
"""An item of the ``objectives`` section of a recipe, which decodes as a tuple of them."""


def build_objective(config: ObjectiveConfig) -> Objective:
    """One objective."""
    match config:
        case ClassificationConfig():
            return Classification(config)
        case MaskedLMConfig():
            return MaskedLM(config)
        case NextSentenceConfig():
            return NextSentence(config)
        case SpanBoundaryConfig():
            return SpanBoundary(config)
        case _:
            assert_never(config)


def build_objectives(configs: Sequence[ObjectiveConfig]) -> dict[str, Objective]:
    """Objectives by name, in the order given.

    Raises:
        ConfigError: none is given, or one is given twice.
    """
    if not configs:
        raise ConfigError(["objectives: give at least one, such as {kind: masked_lm}"])
    kinds = [config.kind for config in configs]
    repeated = sorted({kind for kind in kinds if kinds.count(kind) > 1})
    if repeated:
        raise ConfigError([f"objectives: {kind} is given more than once" for kind in repeated])
    return {config.kind: build_objective(config) for config in configs}
