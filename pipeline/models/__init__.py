"""The families: one file each, and the one list of them all.

A new family is its file, a member of ``ModelConfig``, and a case of ``build_model``.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias, assert_never

from pydantic import Field

from pipeline.models.bert import Bert, BertConfig
from pipeline.models.roberta import Roberta, RobertaConfig
from pipeline.nn.model import PretrainingModel

ModelConfig: TypeAlias = Annotated[BertConfig | RobertaConfig, Field(discriminator="family")]
"""The ``model`` section of a recipe."""


def build_model(config: ModelConfig) -> PretrainingModel:
    """A model with new weights, drawn from torch's global generator."""
    match config:
        case BertConfig():
            return Bert(config)
        case RobertaConfig():
            return Roberta(config)
        case _:
            assert_never(config)
