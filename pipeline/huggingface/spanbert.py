"""SpanBERT in transformers: ``BertForMaskedLM``; the boundary head goes into a file of its own."""

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
from pipeline.models.spanbert import SpanBertConfig

ARCHITECTURES = ("BertForMaskedLM",)

OURS_ALONE = {
    "heads.span_boundary.index.weight",
    *(
        f"heads.span_boundary.{layer}.{kind}"
        for layer in ("dense_1", "norm_1", "dense_2", "norm_2")
        for kind in ("weight", "bias")
    ),
    "heads.span_boundary.decoder.bias",
}
"""The head for boundaries."""

FIELDS = (
    ENCODER_FIELDS
    | TABLE_FIELDS
    | {
        "max_span_index": "max_span_index",
        "span_index_size": "span_index_size",
    }
)
"""Our fields of the configuration and theirs; the last two mean nothing to transformers."""

REQUIRED = ENCODER_REQUIRED | {FAMILY: "spanbert", "position_embedding_type": "absolute"}
"""Settings that have a single value here."""


def config_to_huggingface(config: SpanBertConfig, tokenizer: TokenizerInfo) -> dict[str, Any]:
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


def config_from_huggingface(fields: Mapping[str, Any], tensors: Iterable[str]) -> SpanBertConfig:
    """The configuration of a folder.

    Raises:
        ValueError: a setting that this family does not have, or a shape that is not said.
    """
    check_fields(fields, FIELDS.values(), REQUIRED)
    return SpanBertConfig(
        family="spanbert", **{ours: fields[theirs] for ours, theirs in FIELDS.items()}
    )


def name_table(config: SpanBertConfig) -> NameTable:
    """The names of all tensors."""
    return encoder_table(
        "bert",
        config.num_layers,
        our_ties={"heads.span_boundary.decoder.weight": "embeddings.word.weight"},
        ours_alone=OURS_ALONE,
    )


def answers(config: SpanBertConfig) -> dict[str, Answer]:
    """Each output that theirs has, too."""
    return {"masked_lm": Answer("logits")}
