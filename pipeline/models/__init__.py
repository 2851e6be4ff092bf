"""The families: one file each, and the one list of them all.

A new family is its file, a member of ``ModelConfig``, and a case of ``build_model``.
"""

from __future__ import annotations

from typing import TypeAlias, assert_never

from pipeline.models.bert import Bert, BertConfig
from pipeline.nn.model import PretrainingModel

ModelConfig: TypeAlias = BertConfig
"""The ``model`` section of a recipe.

Pydantic refuses a discriminated union of a single member. From the second on this reads
``Annotated[BertConfig | OtherConfig, Field(discriminator="family")]``.
"""


def build_model(config: ModelConfig) -> PretrainingModel:
    """A model with new weights, drawn from torch's global generator."""
    match config:
        case BertConfig():
            return Bert(config)
        case _:
            assert_never(config)
