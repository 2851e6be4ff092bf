"""ALBERT in transformers: ``AlbertForPreTraining``, or ``AlbertForMaskedLM`` without the order.

Their layers share whole or not at all. A model whose layers share one part has a group for each
layer there, with that part's tensors as often as there are layers, and a field of ours in
``config.json``, which says on import that they are one again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.huggingface.form import Answer, check_fields, check_size
from pipeline.huggingface.names import ENCODER_FIELDS, TABLE_FIELDS, NameTable, expand
from pipeline.huggingface.tokenizer import TokenizerInfo
from pipeline.models.albert import AlbertConfig
from pipeline.nn.sharing import PARTS, first_layers, group_of

ARCHITECTURES = ("AlbertForPreTraining", "AlbertForMaskedLM")

OUTSIDE = {
    "embeddings.word": "albert.embeddings.word_embeddings",
    "embeddings.position": "albert.embeddings.position_embeddings",
    "embeddings.segment": "albert.embeddings.token_type_embeddings",
    "embeddings.norm": "albert.embeddings.LayerNorm",
    "embeddings.projection": "albert.encoder.embedding_hidden_mapping_in",
    "heads.masked_lm.dense": "predictions.dense",
    "heads.masked_lm.norm": "predictions.LayerNorm",
}
SENTENCE_ORDER = {
    "heads.sentence_order.pooler": "albert.pooler",
    "heads.sentence_order.classifier": "sop_classifier.classifier",
}
POOLER = {"albert.pooler.weight", "albert.pooler.bias"}
GROUP = "albert.encoder.albert_layer_groups.{}.albert_layers.0"
LAYER = {
    "attention": {
        "attention.query": "attention.query",
        "attention.key": "attention.key",
        "attention.value": "attention.value",
        "attention.output": "attention.dense",
        "attention_norm": "attention.LayerNorm",
    },
    "ffn": {
        "feed_forward.up": "ffn",
        "feed_forward.down": "ffn_output",
        "feed_forward_norm": "full_layer_layer_norm",
    },
}
"""The layers of a block, by the part that they belong to."""

FIELDS = ENCODER_FIELDS | TABLE_FIELDS | {"embedding_size": "embedding_size"}
"""Our fields of the configuration and theirs."""
GROUPS = "num_hidden_groups"
SHARING = "lexmill_sharing"

REQUIRED = {"inner_group_num": 1, "tie_word_embeddings": True}
"""Settings of theirs that have a single value here, which is also their default."""

CLASSIFIER_DROPOUT = 0.1
"""Of the classifiers that are trained after us; their default, and no part of pretraining."""


def config_to_huggingface(config: AlbertConfig, tokenizer: TokenizerInfo) -> dict[str, Any]:
    """The contents of ``config.json``.

    Raises:
        ValueError: the tokenizer has more tokens than the model has embeddings.
    """
    check_size(tokenizer, config.vocab_size)
    return {
        "architectures": [ARCHITECTURES[0] if config.sentence_order else ARCHITECTURES[1]],
        "model_type": "albert",
        "dtype": "float32",
        "bos_token_id": tokenizer.special_ids["cls_token"],
        "eos_token_id": tokenizer.special_ids["sep_token"],
        "pad_token_id": tokenizer.special_ids["pad_token"],
        "classifier_dropout_prob": CLASSIFIER_DROPOUT,
        GROUPS: config.num_groups if config.sharing == "all" else config.num_layers,
        **({SHARING: config.sharing} if config.sharing in PARTS else {}),
        **{theirs: getattr(config, ours) for ours, theirs in FIELDS.items()},
        **REQUIRED,
    }


def config_from_huggingface(fields: Mapping[str, Any], tensors: Iterable[str]) -> AlbertConfig:
    """The configuration of a folder.

    Raises:
        ValueError: a setting that this family does not have, or a shape that is not said.
    """
    check_fields(fields, (GROUPS, *FIELDS.values()), REQUIRED)
    apart = fields[GROUPS] == fields["num_hidden_layers"] > 1
    sharing = fields.get(SHARING, "none" if apart else "all")
    if sharing in PARTS and not apart:
        raise ValueError(
            f"config.json: {SHARING} is {sharing!r}, and {GROUPS} {fields[GROUPS]}; layers that "
            "share a part have a group each"
        )
    return AlbertConfig(
        family="albert",
        sharing=sharing,
        num_groups=fields[GROUPS] if sharing == "all" else 1,
        sentence_order=fields["architectures"] == [ARCHITECTURES[0]]
        or "sop_classifier.classifier.weight" in set(tensors),
        **{ours: fields[theirs] for ours, theirs in FIELDS.items()},
    )


def name_table(config: AlbertConfig) -> NameTable:
    """The names of all tensors."""
    layers = OUTSIDE | (SENTENCE_ORDER if config.sentence_order else {})
    ties, copies = dict[str, str](), dict[str, str]()
    for part, names in LAYER.items():
        for layer, first in enumerate(_first_layers(config, part)):
            for ours, theirs in names.items():
                own, place = f"blocks.{layer}.{ours}", f"{_group(config, layer)}.{theirs}"
                if layer == first:
                    layers |= {own: place}
                    continue
                ties |= {own: f"blocks.{first}.{ours}"}
                if config.sharing != "all":
                    copies |= {place: f"{_group(config, first)}.{theirs}"}
    return NameTable(
        names={"heads.masked_lm.decoder.bias": "predictions.bias", **expand(layers, 1)},
        our_ties={
            "heads.masked_lm.decoder.weight": "embeddings.word.weight",
            **expand(ties, 1),
        },
        their_copies={"predictions.decoder.bias": "predictions.bias", **expand(copies, 1)},
        their_ties={"predictions.decoder.weight": "albert.embeddings.word_embeddings.weight"},
        theirs_alone=frozenset() if config.sentence_order else POOLER,
    )


def _first_layers(config: AlbertConfig, part: str) -> tuple[int, ...]:
    """The layer whose weights each layer has in that part."""
    if config.sharing in ("all", part):
        return first_layers(config.num_layers, config.num_groups)
    return tuple(range(config.num_layers))


def _group(config: AlbertConfig, layer: int) -> str:
    """Where their file has the weights of a layer."""
    if config.sharing == "all":
        return GROUP.format(group_of(layer, config.num_layers, config.num_groups))
    return GROUP.format(layer)


def answers(config: AlbertConfig) -> dict[str, Answer]:
    """Each output, and where their model's result has it."""
    if config.sentence_order:
        return {
            "masked_lm": Answer("prediction_logits"),
            "sentence_order": Answer("sop_logits", per_sequence=True),
        }
    return {"masked_lm": Answer("logits")}
