"""The Hugging Face form: the one place that knows its names, files and classes.

``export.py`` writes a folder and proves that it computes the same; ``importing.py`` reads one.
A family adds its file (configuration and tensor names) and a case of each function here.
Transformers itself is imported only where a folder is proved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, assert_never

from pipeline.huggingface import bert
from pipeline.huggingface.names import NameTable
from pipeline.huggingface.tokenizer import TokenizerInfo
from pipeline.models import ModelConfig
from pipeline.models.bert import BertConfig


def config_to_huggingface(config: ModelConfig, tokenizer: TokenizerInfo) -> dict[str, Any]:
    """The contents of ``config.json``.

    Raises:
        ValueError: model and tokenizer do not fit together.
    """
    match config:
        case BertConfig():
            return bert.config_to_huggingface(config, tokenizer)
        case _:
            assert_never(config)


def config_from_huggingface(fields: Mapping[str, Any], tensors: Iterable[str]) -> ModelConfig:
    """The configuration of a folder, from its ``config.json`` and the names of its tensors.

    Raises:
        ValueError: an architecture or a setting that no family here has.
    """
    architectures = fields.get("architectures") or []
    if len(architectures) == 1 and architectures[0] in bert.ARCHITECTURES:
        return bert.config_from_huggingface(fields, tensors)
    raise ValueError(
        f"config.json: architectures {architectures} is not supported; "
        f"expected one of {', '.join(bert.ARCHITECTURES)}"
    )


def name_table(config: ModelConfig) -> NameTable:
    """Our tensor names and theirs."""
    match config:
        case BertConfig():
            return bert.name_table(config)
        case _:
            assert_never(config)


def logit_fields(config: ModelConfig) -> Mapping[str, str]:
    """Each output of ours, and the field of their model's result that holds its logits."""
    match config:
        case BertConfig():
            return bert.logit_fields(config)
        case _:
            assert_never(config)
