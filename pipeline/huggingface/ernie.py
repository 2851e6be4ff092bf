"""ERNIE 1.0 in transformers: ``ErnieForPreTraining``; without next sentence ``ErnieForMaskedLM``.

The head for dialogues has no place there and stands in a file of ours; their roles are token types
2 and 3.
"""

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
    expand,
)
from pipeline.huggingface.tokenizer import TokenizerInfo
from pipeline.models.ernie import ErnieConfig

ARCHITECTURES = ("ErnieForPreTraining", "ErnieForMaskedLM")

NEXT_SENTENCE = {
    "heads.next_sentence.pooler": "ernie.pooler.dense",
    "heads.next_sentence.classifier": "cls.seq_relationship",
}
DIALOGUES = {
    "heads.dialogue_response.pooler": "",
    "heads.dialogue_response.classifier": "",
}
"""Ours alone."""

FIELDS = ENCODER_FIELDS | TABLE_FIELDS
"""Our fields of the configuration and theirs."""

REQUIRED = ENCODER_REQUIRED | {"use_task_id": False}
"""Settings of theirs that have a single value here, which is also their default."""


def config_to_huggingface(config: ErnieConfig, tokenizer: TokenizerInfo) -> dict[str, Any]:
    """The contents of ``config.json``.

    Raises:
        ValueError: the tokenizer has more tokens than the model has embeddings.
    """
    check_size(tokenizer, config.vocab_size)
    return {
        "architectures": [ARCHITECTURES[0] if config.next_sentence else ARCHITECTURES[1]],
        "model_type": "ernie",
        "dtype": "float32",
        "pad_token_id": tokenizer.special_ids["pad_token"],
        **{theirs: getattr(config, ours) for ours, theirs in FIELDS.items()},
        **REQUIRED,
    }


def config_from_huggingface(fields: Mapping[str, Any], tensors: Iterable[str]) -> ErnieConfig:
    """The configuration of a folder.

    Raises:
        ValueError: a setting that this family does not have, or a shape that is not said.
    """
    check_fields(fields, FIELDS.values(), REQUIRED)
    names = set(tensors)
    return ErnieConfig(
        family="ernie",
        next_sentence=fields["architectures"] == [ARCHITECTURES[0]]
        or "cls.seq_relationship.weight" in names,
        dialogue_response="heads.dialogue_response.classifier.weight" in names,
        **{ours: fields[theirs] for ours, theirs in FIELDS.items()},
    )


def name_table(config: ErnieConfig) -> NameTable:
    """The names of all tensors that theirs has, too."""
    return encoder_table(
        "ernie",
        config.num_layers,
        NEXT_SENTENCE if config.next_sentence else {},
        ours_alone=expand(DIALOGUES, 0).keys() if config.dialogue_response else frozenset(),
    )


def answers(config: ErnieConfig) -> dict[str, Answer]:
    """Each output that their model has, and where its result has it."""
    if config.next_sentence:
        return {
            "masked_lm": Answer("prediction_logits"),
            "next_sentence": Answer("seq_relationship_logits", per_sequence=True),
        }
    return {"masked_lm": Answer("logits")}
