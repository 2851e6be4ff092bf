"""MacBERT in transformers: ``BertForMaskedLM``; pooler and classifier go into their own file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.huggingface.form import FAMILY, Answer, check_fields, check_size
from pipeline.huggingface.names import (
    ENCODER_FIELDS,
    ENCODER_REQUIRED,
    TABLE_FIELDS,
    NameTable,
    encoder_table,
)
from pipeline.huggingface.tokenizer import TokenizerInfo
from pipeline.models.macbert import MacBertConfig

ARCHITECTURES = ("BertForMaskedLM",)

OURS_ALONE = {
    f"heads.sentence_order.{layer}.{kind}"
    for layer in ("pooler", "classifier")
    for kind in ("weight", "bias")
}
"""Pooler and classifier."""

FIELDS = ENCODER_FIELDS | TABLE_FIELDS
"""Our fields of the configuration and theirs."""

REQUIRED = ENCODER_REQUIRED | {FAMILY: "macbert", "position_embedding_type": "absolute"}
"""Settings that have a single value here."""


def config_to_huggingface(config: MacBertConfig, tokenizer: TokenizerInfo) -> dict[str, Any]:
    """The contents of ``config.json``.

    Raises:
        ValueError: the tokenizer has more tokens than the model has embeddings.
    """
    check_size(tokenizer, config.vocab_size)
    return {
        "architectures": [ARCHITECTURES[0]],
        "model_type": "bert",
        "dtype": "float32",
        "pad_token_id": tokenizer.special_ids["pad_token"],
        **{theirs: getattr(config, ours) for ours, theirs in FIELDS.items()},
        **REQUIRED,
    }


def config_from_huggingface(fields: Mapping[str, Any], tensors: Iterable[str]) -> MacBertConfig:
    """The configuration of a folder.

    Raises:
        ValueError: a setting that this family does not have, or a shape that is not said.
    """
    check_fields(fields, FIELDS.values(), REQUIRED)
    return MacBertConfig(
        family="macbert", **{ours: fields[theirs] for ours, theirs in FIELDS.items()}
    )


def name_table(config: MacBertConfig) -> NameTable:
    """The names of all tensors."""
    return encoder_table("bert", config.num_layers, ours_alone=OURS_ALONE)


def answers(config: MacBertConfig) -> dict[str, Answer]:
    """Each output that theirs has, too."""
    return {"masked_lm": Answer("logits")}
