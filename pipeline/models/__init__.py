"""The families: one file each, and the one list of them all.

A new family is its file, a member of ``ModelConfig``, and a case of ``build_model``.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias, assert_never

from pydantic import Field

from pipeline.models.albert import Albert, AlbertConfig
from pipeline.models.bert import Bert, BertConfig
from pipeline.models.ernie import Ernie, ErnieConfig
from pipeline.models.macbert import MacBert, MacBertConfig
from pipeline.models.roberta import Roberta, RobertaConfig
from pipeline.models.spanbert import SpanBert, SpanBertConfig
from pipeline.nn.model import PretrainingModel

ModelConfig: TypeAlias = Annotated[
    AlbertConfig | BertConfig | ErnieConfig | MacBertConfig | RobertaConfig | SpanBertConfig,
    Field(discriminator="family"),
]
"""The ``model`` section of a recipe."""


def build_model(config: ModelConfig) -> PretrainingModel:
    """A model with new weights, drawn from torch's global generator."""
    match config:
        case AlbertConfig():
            return Albert(config)
        case BertConfig():
            return Bert(config)
        case ErnieConfig():
            return Ernie(config)
        case MacBertConfig():
            return MacBert(config)
        case RobertaConfig():
            return Roberta(config)
        case SpanBertConfig():
            return SpanBert(config)
        case _:
            assert_never(config)
