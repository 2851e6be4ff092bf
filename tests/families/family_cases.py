"""Every family once: what the tests of all families ask of it, and nothing that only one needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from own_heads import SentenceOrders, SpanBoundaries, boundaries, orders
from references import PADDING_IS_1, Reference, Theirs
from torch import Tensor, nn

from pipeline.batch import Batch, Targets
from pipeline.huggingface.proof import Probe
from pipeline.huggingface.tokenizer import TokenizerInfo
from pipeline.models import ModelConfig
from pipeline.models.albert import AlbertConfig
from pipeline.models.bert import BertConfig
from pipeline.models.ernie import ErnieConfig
from pipeline.models.macbert import MacBertConfig
from pipeline.models.roberta import RobertaConfig
from pipeline.models.spanbert import SpanBertConfig


@dataclass(frozen=True)
class Family:
    """A family's shapes, and what it is trained on.

    The objectives of its trainings are its outputs; their settings are those of ``tiny`` with a
    larger vocabulary.

    Attributes:
        tiny: small in every dimension, dropout 0, with all of its outputs.
        odd: other values for every setting that its published models leave alone.
        based: the widths of the base model, few layers, a small vocabulary.
        published: configurations of published size, and how many parameters they have.
        measured: the largest difference of a logit from transformers', tiny, odd and based.
        examples: layout, corruption and frame of the rows that it is trained on; length and
            packing are the tests'.
        tokenizer: the section of a recipe; of at most 300 tokens.
        corpus: settings of the section, beside where it lies.
        trained: settings of the model in trainings that differ from ``tiny``'s.
        reference: what it computes, by other code.
        asked: targets on a probe for the outputs that its class of transformers does not have.
        text: the folder of real text that it has to learn from.
    """

    tiny: ModelConfig
    odd: ModelConfig
    based: ModelConfig
    published: Mapping[str, tuple[ModelConfig, int]]
    measured: tuple[float, float, float]
    examples: Mapping[str, Any]
    tokenizer: Mapping[str, Any] = field(default_factory=lambda: WORDPIECE)
    corpus: Mapping[str, Any] = field(default_factory=dict)
    trained: Mapping[str, Any] = field(default_factory=dict)
    reference: Callable[[ModelConfig, TokenizerInfo], Reference] = Theirs
    asked: Callable[[Probe], Mapping[str, Targets]] = lambda probe: {}
    text: str = "en_novels"


SMALL = {"vocab_size": 100, "hidden_size": 16, "num_layers": 2, "num_heads": 4}
STILL = {"dropout": 0.0, "attention_dropout": 0.0}
LARGE = {"hidden_size": 1024, "num_layers": 24, "num_heads": 16, "intermediate_size": 4096}
WORDPIECE = {"kind": "wordpiece", "vocab_size": 300}
MASKED = {"kind": "masked"}

FAMILIES: Mapping[str, Family] = {
    "albert": Family(
        tiny=AlbertConfig(
            family="albert", **SMALL, **STILL, embedding_size=8, intermediate_size=32
        ),
        odd=AlbertConfig(
            family="albert",
            vocab_size=104,
            embedding_size=20,
            hidden_size=12,
            num_layers=5,
            num_heads=3,
            intermediate_size=20,
            num_groups=2,
            max_positions=40,
            num_segments=3,
            activation="gelu",
            dropout=0.2,
            attention_dropout=0.05,
            layer_norm_eps=1e-6,
            initializer_std=0.03,
        ),
        based=AlbertConfig(family="albert", vocab_size=3000, num_layers=2),
        published={"base": (AlbertConfig(family="albert", vocab_size=30000), 11_813_810)},
        measured=(3.6e-7, 6.6e-7, 8.4e-7),
        examples={"layout": {"kind": "sentence_order"}, "corruption": {"kind": "ngrams"}},
        tokenizer={
            "kind": "unigram",
            "vocab_size": 300,
            "normalization": "nmt_nfkc_cf",
            "special_tokens": ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"],
        },
    ),
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
        examples={"layout": {"kind": "pairs"}, "corruption": MASKED},
    ),
    "ernie": Family(
        tiny=ErnieConfig(family="ernie", **SMALL, **STILL, intermediate_size=32),
        odd=ErnieConfig(
            family="ernie",
            vocab_size=104,
            hidden_size=12,
            num_layers=3,
            num_heads=3,
            intermediate_size=20,
            max_positions=40,
            num_segments=4,
            activation="gelu",
            dropout=0.2,
            attention_dropout=0.05,
            layer_norm_eps=1e-6,
            initializer_std=0.03,
        ),
        based=ErnieConfig(family="ernie", vocab_size=3000, num_layers=2),
        published={"base": (ErnieConfig(family="ernie"), 100_477_778)},
        measured=(5.1e-7, 8.7e-7, 2.7e-6),
        examples={
            "layout": {"kind": "pairs"},
            "corruption": {"kind": "units", "level": {"tokens": 1, "words": 1}},
        },
        text="zh_novels",
    ),
    "macbert": Family(
        tiny=MacBertConfig(family="macbert", **SMALL, **STILL, intermediate_size=32),
        odd=MacBertConfig(
            family="macbert",
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
        based=MacBertConfig(family="macbert", vocab_size=3000, num_layers=2),
        published={
            "base": (MacBertConfig(family="macbert", vocab_size=21128), 102_882_442),
            "large": (MacBertConfig(family="macbert", vocab_size=21128, **LARGE), 326_597_258),
        },
        measured=(4.8e-7, 7.2e-7, 2.3e-6),
        examples={
            "layout": {"kind": "sentence_order"},
            "corruption": {
                "kind": "similar",
                "words": {
                    "kind": "cooccurring",
                    "num_words": 100,
                    "num_contexts": 40,
                    "dimensions": 10,
                    "min_similarity": 0.1,
                },
            },
        },
        reference=SentenceOrders,
        asked=orders,
        text="zh_novels",
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
        examples={
            "layout": {"kind": "doc_sentences"},
            # A padding drawn as a random token has no position in theirs.
            "corruption": {**MASKED, "rounding": "stochastic", "random_specials": False},
        },
        tokenizer={
            "kind": "byte_level_bpe",
            "vocab_size": 300,
            "special_tokens": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        },
    ),
    "spanbert": Family(
        tiny=SpanBertConfig(
            family="spanbert", **SMALL, **STILL, intermediate_size=32, span_index_size=10
        ),
        odd=SpanBertConfig(
            family="spanbert",
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
            max_span_index=17,
            span_index_size=7,
        ),
        based=SpanBertConfig(family="spanbert", vocab_size=3000, num_layers=2),
        published={
            "base": (SpanBertConfig(family="spanbert", vocab_size=28996), 110_300_480),
            "large": (SpanBertConfig(family="spanbert", vocab_size=28996, **LARGE), 336_998_976),
        },
        measured=(4.8e-7, 1.1e-6, 3.1e-6),
        examples={"layout": {"kind": "doc_sentences"}, "corruption": {"kind": "spans"}},
        reference=SpanBoundaries,
        asked=boundaries,
    ),
}


class DialogueResponses(Theirs):
    """ERNIE's head for dialogues: tanh of a dense layer on the first hidden state, two classes."""

    def __init__(self, config: ErnieConfig, tokenizer: TokenizerInfo = PADDING_IS_1) -> None:
        super().__init__(config, tokenizer)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, 2)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Logits of both heads."""
        made = super().forward(batch)
        asked = batch.targets.get("dialogue_response")
        if asked is not None:
            states = self.model.ernie(
                input_ids=batch.ids.long(),
                token_type_ids=batch.segment_ids.long(),
                attention_mask=(batch.sequence_ids > 0).long(),
            ).last_hidden_state
            firsts = states[asked.indices // batch.ids.shape[1], 0]
            made["dialogue_response"] = self.classifier(torch.tanh(self.pooler(firsts)))
        return made

    def ours(self) -> dict[str, Tensor]:
        """All weights under the names of our ``state_dict``."""
        own = {"pooler": self.pooler, "classifier": self.classifier}
        return super().ours() | {
            f"heads.dialogue_response.{part}.{name}": tensor.detach().clone()
            for part, layer in own.items()
            for name, tensor in layer.named_parameters()
        }


def responses(probe: Probe) -> dict[str, Targets]:
    """Both sequences of a probe."""
    return {"dialogue_response": probe.firsts}


DIALOGUES = Family(
    tiny=ErnieConfig(
        family="ernie",
        **SMALL,
        **STILL,
        intermediate_size=32,
        num_segments=4,
        next_sentence=False,
        dialogue_response=True,
    ),
    odd=replace(FAMILIES["ernie"].odd, num_segments=5, next_sentence=False, dialogue_response=True),
    based=replace(
        FAMILIES["ernie"].based, num_segments=4, next_sentence=False, dialogue_response=True
    ),
    published={},
    measured=FAMILIES["ernie"].measured,
    examples={
        "layout": {"kind": "dialogues", "speakers": ["Q:", "A:"]},
        "corruption": {"kind": "units", "level": {"tokens": 1, "words": 1}},
    },
    reference=DialogueResponses,
    asked=responses,
)
"""ERNIE on dialogues, of which test_ernie_dialogues.py asks what is asked of families.

It is none of them: their made-up corpus has no speakers, and there are no real dialogues to learn.
"""
