"""RoBERTa in transformers: ``RobertaForMaskedLM``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.huggingface.form import Answer, check_fields, check_size
from pipeline.huggingface.names import ENCODER, ENCODER_FIELDS, ENCODER_REQUIRED, NameTable, expand
from pipeline.huggingface.tokenizer import TokenizerInfo
from pipeline.models.roberta import FIRST_POSITION, RobertaConfig

ARCHITECTURES = ("RobertaForMaskedLM",)

HEADS = {
    "heads.masked_lm.dense": "lm_head.dense",
    "heads.masked_lm.norm": "lm_head.layer_norm",
}

REQUIRED = ENCODER_REQUIRED | {"type_vocab_size": 1, "position_embedding_type": "absolute"}
"""Settings of theirs that have a single value here."""


def config_to_huggingface(config: RobertaConfig, tokenizer: TokenizerInfo) -> dict[str, Any]:
    """The contents of ``config.json``.

    Their positions count from the padding's id + 1, so that it must be 1.

    Raises:
        ValueError: the tokenizer has more tokens than embeddings, or pads with another id.
    """
    check_size(tokenizer, config.vocab_size)
    pad = tokenizer.special_ids["pad_token"]
    if pad != FIRST_POSITION - 1:
        raise ValueError(
            f"the tokenizer pads with id {pad}; RoBERTa's positions count from the padding's id "
            f"+ 1, which is {FIRST_POSITION}: give the vocabulary its <pad> as id 1"
        )
    return {
        "architectures": [ARCHITECTURES[0]],
        "model_type": "roberta",
        "dtype": "float32",
        "bos_token_id": tokenizer.special_ids["cls_token"],
        "eos_token_id": tokenizer.special_ids["sep_token"],
        "pad_token_id": pad,
        "max_position_embeddings": config.max_positions + FIRST_POSITION,
        **{theirs: getattr(config, ours) for ours, theirs in ENCODER_FIELDS.items()},
        **REQUIRED,
    }


def config_from_huggingface(fields: Mapping[str, Any], tensors: Iterable[str]) -> RobertaConfig:
    """The configuration of a folder.

    Raises:
        ValueError: a setting that this family does not have, or a shape that is not said.
    """
    required = {**REQUIRED, "pad_token_id": FIRST_POSITION - 1}
    check_fields(
        fields, ("type_vocab_size", "max_position_embeddings", *ENCODER_FIELDS.values()), required
    )
    return RobertaConfig(
        family="roberta",
        max_positions=fields["max_position_embeddings"] - FIRST_POSITION,
        **{ours: fields[theirs] for ours, theirs in ENCODER_FIELDS.items()},
    )


def name_table(config: RobertaConfig) -> NameTable:
    """The names of all tensors."""
    layers = {ours: f"roberta.{theirs}" for ours, theirs in ENCODER.items()} | HEADS
    return NameTable(
        names={
            "heads.masked_lm.decoder.bias": "lm_head.bias",
            **expand(layers, config.num_layers),
        },
        our_ties={"heads.masked_lm.decoder.weight": "embeddings.word.weight"},
        their_copies={"lm_head.decoder.bias": "lm_head.bias"},
        their_ties={"lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight"},
        theirs_alone={"roberta.pooler.dense.weight", "roberta.pooler.dense.bias"},
    )


def answers(config: RobertaConfig) -> dict[str, Answer]:
    """Each output, and where their model's result has it."""
    return {"masked_lm": Answer("logits")}
