"""BERT in transformers: ``BertForPreTraining``, or ``BertForMaskedLM`` without next sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.huggingface.form import Answer, check_fields, check_size
from pipeline.huggingface.names import (
    ENCODER_FIELDS,
    ENCODER_REQUIRED,
    TABLE_FIELDS,
    NameTable,
    encoder_table,
)
from pipeline.huggingface.tokenizer import TokenizerInfo
from pipeline.models.bert import BertConfig

ARCHITECTURES = ("BertForPreTraining", "BertForMaskedLM")

NEXT_SENTENCE = {
    "heads.next_sentence.pooler": "bert.pooler.dense",
    "heads.next_sentence.classifier": "cls.seq_relationship",
}

FIELDS = ENCODER_FIELDS | TABLE_FIELDS
"""Our fields of the configuration and theirs."""

REQUIRED = ENCODER_REQUIRED | {"position_embedding_type": "absolute"}
"""Settings of theirs that have a single value here, which is also their default."""


def config_to_huggingface(config: BertConfig, tokenizer: TokenizerInfo) -> dict[str, Any]:
    """The contents of ``config.json``.

    Raises:
        ValueError: the tokenizer has more tokens than the model has embeddings.
    """
    check_size(tokenizer, config.vocab_size)
    return {
        "architectures": [ARCHITECTURES[0] if config.next_sentence else ARCHITECTURES[1]],
        "model_type": "bert",
        "dtype": "float32",
        "pad_token_id": tokenizer.special_ids["pad_token"],
        **{theirs: getattr(config, ours) for ours, theirs in FIELDS.items()},
        **REQUIRED,
    }


def config_from_huggingface(fields: Mapping[str, Any], tensors: Iterable[str]) -> BertConfig:
    """The configuration of a folder.

    A folder of ``BertForMaskedLM`` may hold the next-sentence head all the same, as the published
    ``bert-base-uncased`` does; it is kept then.

    Raises:
        ValueError: a setting that this family does not have, or a shape that is not said.
    """
    check_fields(fields, FIELDS.values(), REQUIRED)
    return BertConfig(
        family="bert",
        next_sentence=fields["architectures"] == [ARCHITECTURES[0]]
        or "cls.seq_relationship.weight" in set(tensors),
        **{ours: fields[theirs] for ours, theirs in FIELDS.items()},
    )


def name_table(config: BertConfig) -> NameTable:
    """The names of all tensors."""
    return encoder_table("bert", config.num_layers, NEXT_SENTENCE if config.next_sentence else {})


def answers(config: BertConfig) -> dict[str, Answer]:
    """Each output, and where their model's result has it."""
    if config.next_sentence:
        return {
            "masked_lm": Answer("prediction_logits"),
            "next_sentence": Answer("seq_relationship_logits", per_sequence=True),
        }
    return {"masked_lm": Answer("logits")}
