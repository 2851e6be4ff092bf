"""Every family once: what the tests of all families ask of it, and nothing that only one needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.models import ModelConfig
from pipeline.models.bert import BertConfig
from pipeline.models.roberta import RobertaConfig


@dataclass(frozen=True)
class Family:
    """A family's shapes.

    Attributes:
        tiny: small in every dimension, dropout 0, with all of its outputs.
        odd: other values for every setting that its published models leave alone.
        based: the widths of the base model, few layers, a small vocabulary.
        published: configurations of published size, and how many parameters they have.
        measured: the largest difference of a logit from transformers', tiny, odd and based.
    """

    tiny: ModelConfig
    odd: ModelConfig
    based: ModelConfig
    published: Mapping[str, tuple[ModelConfig, int]]
    measured: tuple[float, float, float]


SMALL = {"vocab_size": 100, "hidden_size": 16, "num_layers": 2, "num_heads": 4}
STILL = {"dropout": 0.0, "attention_dropout": 0.0}
LARGE = {"hidden_size": 1024, "num_layers": 24, "num_heads": 16, "intermediate_size": 4096}

FAMILIES: Mapping[str, Family] = {
    "bert": Family(
        tiny=BertConfig(family="bert", **SMALL, **STILL, intermediate_size=32),
        odd=BertConfig(
            family="bert",
            vocab_size=104,
            hidden_size=12,
            num_layers=3,
            num_heads=3,
            intermediate_size=20,
            max_positions=40,
            num_segments=3,
            activation="gelu_new",
            dropout=0.2,
            attention_dropout=0.05,
            layer_norm_eps=1e-6,
            initializer_std=0.03,
        ),
        based=BertConfig(family="bert", vocab_size=3000, num_layers=2),
        published={
            "base": (BertConfig(family="bert", vocab_size=30522), 110_106_428),
            "large": (BertConfig(family="bert", vocab_size=30522, **LARGE), 336_226_108),
        },
        measured=(3.6e-7, 4.2e-7, 1.2e-6),
    ),
    "roberta": Family(
        tiny=RobertaConfig(family="roberta", **SMALL, **STILL, intermediate_size=32),
        odd=RobertaConfig(
            family="roberta",
            vocab_size=104,
            hidden_size=12,
            num_layers=3,
            num_heads=3,
            intermediate_size=20,
            max_positions=40,
            activation="gelu_new",
            dropout=0.2,
            attention_dropout=0.05,
            layer_norm_eps=1e-6,
            initializer_std=0.03,
        ),
        based=RobertaConfig(family="roberta", vocab_size=3000, num_layers=2),
        published={
            "base": (RobertaConfig(family="roberta", vocab_size=50265), 124_697_433),
            "large": (RobertaConfig(family="roberta", vocab_size=50265, **LARGE), 355_412_057),
        },
        measured=(3e-7, 3e-7, 1e-6),
    ),
}
