"""BERT in transformers: ``BertForPreTraining``, or ``BertForMaskedLM`` without next sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.huggingface.form import Answer
from pipeline.huggingface.names import NameTable
from pipeline.huggingface.tokenizer import TokenizerInfo
from pipeline.models.bert import BertConfig

ARCHITECTURES = ("BertForPreTraining", "BertForMaskedLM")

LAYERS = {
    "embeddings.word": "bert.embeddings.word_embeddings",
    "embeddings.position": "bert.embeddings.position_embeddings",
    "embeddings.segment": "bert.embeddings.token_type_embeddings",
    "embeddings.norm": "bert.embeddings.LayerNorm",
    "blocks.*.attention.query": "bert.encoder.layer.*.attention.self.query",
    "blocks.*.attention.key": "bert.encoder.layer.*.attention.self.key",
    "blocks.*.attention.value": "bert.encoder.layer.*.attention.self.value",
    "blocks.*.attention.output": "bert.encoder.layer.*.attention.output.dense",
    "blocks.*.attention_norm": "bert.encoder.layer.*.attention.output.LayerNorm",
    "blocks.*.feed_forward.up": "bert.encoder.layer.*.intermediate.dense",
    "blocks.*.feed_forward.down": "bert.encoder.layer.*.output.dense",
    "blocks.*.feed_forward_norm": "bert.encoder.layer.*.output.LayerNorm",
    "heads.masked_lm.dense": "cls.predictions.transform.dense",
    "heads.masked_lm.norm": "cls.predictions.transform.LayerNorm",
    "heads.next_sentence.pooler": "bert.pooler.dense",
    "heads.next_sentence.classifier": "cls.seq_relationship",
}
"""Our layers and theirs. A layer has a weight and, unless it is a table, a bias."""

FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "num_segments": "type_vocab_size",
    "activation": "hidden_act",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "layer_norm_eps": "layer_norm_eps",
    "initializer_std": "initializer_range",
}
"""Our fields of the configuration and theirs."""

REQUIRED = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
"""Settings of theirs that have a single value here, which is also their default."""


def config_to_huggingface(config: BertConfig, tokenizer: TokenizerInfo) -> dict[str, Any]:
    """The contents of ``config.json``.

    Raises:
        ValueError: the tokenizer has more tokens than the model has embeddings.
    """
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} tokens and the model {config.vocab_size} "
            "embeddings; export with the tokenizer that the model was trained with"
        )
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
    missing = [theirs for theirs in FIELDS.values() if theirs not in fields]
    if missing:
        raise ValueError(f"config.json: no {', '.join(missing)}")
    for name, value in REQUIRED.items():
        if fields.get(name, value) != value:
            raise ValueError(
                f"config.json: {name} is {fields[name]!r}; only {value!r} is supported"
            )
    return BertConfig(
        family="bert",
        next_sentence=fields["architectures"] == [ARCHITECTURES[0]]
        or "cls.seq_relationship.weight" in set(tensors),
        **{ours: fields[theirs] for ours, theirs in FIELDS.items()},
    )


def name_table(config: BertConfig) -> NameTable:
    """The names of all tensors."""
    tables = ("embeddings.word", "embeddings.position", "embeddings.segment")
    names = {"heads.masked_lm.decoder.bias": "cls.predictions.bias"}
    for ours, theirs in LAYERS.items():
        if ours.startswith("heads.next_sentence") and not config.next_sentence:
            continue
        for index in range(config.num_layers) if "*" in ours else (0,):
            for kind in ("weight",) if ours in tables else ("weight", "bias"):
                number = str(index)
                names[f"{ours.replace('*', number)}.{kind}"] = (
                    f"{theirs.replace('*', number)}.{kind}"
                )
    return NameTable(
        names=names,
        our_ties={"heads.masked_lm.decoder.weight": "embeddings.word.weight"},
        their_copies={"cls.predictions.decoder.bias": "cls.predictions.bias"},
        their_ties={"cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight"},
    )


def answers(config: BertConfig) -> dict[str, Answer]:
    """Each output, and where their model's result has it."""
    if config.next_sentence:
        return {
            "masked_lm": Answer("prediction_logits"),
            "next_sentence": Answer("seq_relationship_logits", per_sequence=True),
        }
    return {"masked_lm": Answer("logits")}
