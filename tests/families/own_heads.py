"""Heads that no class of transformers has, written plainly on top of the one that is exported."""

from __future__ import annotations

import torch
from references import PADDING_IS_1, Theirs
from torch import Tensor, nn
from transformers.activations import ACT2FN

from pipeline.batch import Batch, Targets
from pipeline.huggingface.proof import Probe
from pipeline.huggingface.tokenizer import TokenizerInfo
from pipeline.models.macbert import MacBertConfig
from pipeline.models.spanbert import SpanBertConfig


class OnTop(Theirs):
    """Their class, whose hidden states are what a plain head is computed from."""

    def hidden(self, batch: Batch) -> Tensor:
        """The last hidden states ``[rows, length, hidden]``."""
        given = self.model.bert(
            input_ids=batch.ids.long(),
            token_type_ids=batch.segment_ids.long(),
            attention_mask=(batch.sequence_ids > 0).long(),
        )
        states: Tensor = given.last_hidden_state
        return states


class SpanBoundaries(OnTop):
    """SpanBERT's: two layers of gelu and norm, target by target."""

    def __init__(self, config: SpanBertConfig, tokenizer: TokenizerInfo = PADDING_IS_1) -> None:
        super().__init__(config, tokenizer)
        width, index = config.hidden_size, config.span_index_size
        self.table = nn.Parameter(torch.randn(config.max_span_index, index) * 0.02)
        self.first = nn.Parameter(torch.randn(width, 2 * width + index) * 0.02)
        self.second = nn.Parameter(torch.randn(width, width) * 0.02)
        self.biases = nn.Parameter(torch.zeros(2, width))
        self.gains = nn.Parameter(torch.ones(2, width))
        self.shifts = nn.Parameter(torch.zeros(2, width))
        self.of_classes = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Logits of both heads."""
        made = super().forward(batch)
        asked = batch.targets.get("span_boundary")
        if asked is not None:
            hidden, length = self.hidden(batch), batch.ids.shape[1]
            places = zip(
                asked.indices.tolist(),
                asked.extra["right_place"].tolist(),
                asked.extra["index"].tolist(),
                strict=True,
            )
            words = self.model.bert.embeddings.word_embeddings.weight
            scores = []
            for left, right, index in places:
                before = hidden[left // length, left % length]
                behind = hidden[right // length, right % length]
                state = torch.cat([before, behind, self.table[index]])
                state = self.normed(0, self.first @ state)
                state = self.normed(1, self.second @ state)
                scores.append(words @ state + self.of_classes)
            made["span_boundary"] = torch.stack(scores)
        return made

    def normed(self, layer: int, state: Tensor) -> Tensor:
        """Bias, activation and norm of a layer."""
        active = ACT2FN[self.config.activation](state + self.biases[layer])
        centred = active - active.mean()
        deviation = torch.sqrt(centred.square().mean() + self.config.layer_norm_eps)
        return self.gains[layer] * centred / deviation + self.shifts[layer]

    def ours(self) -> dict[str, Tensor]:
        """All weights under the names of our ``state_dict``."""
        own = {"index.weight": self.table, "decoder.bias": self.of_classes}
        for layer, weight in enumerate((self.first, self.second)):
            own |= {
                f"dense_{layer + 1}.weight": weight,
                f"dense_{layer + 1}.bias": self.biases[layer],
                f"norm_{layer + 1}.weight": self.gains[layer],
                f"norm_{layer + 1}.bias": self.shifts[layer],
            }
        return super().ours() | {
            f"heads.span_boundary.{name}": tensor.detach().clone() for name, tensor in own.items()
        }


class SentenceOrders(OnTop):
    """MacBERT's: tanh of a dense layer on the first hidden state, then two classes."""

    def __init__(self, config: MacBertConfig, tokenizer: TokenizerInfo = PADDING_IS_1) -> None:
        super().__init__(config, tokenizer)
        width = config.hidden_size
        self.pooler = nn.Parameter(torch.randn(width, width) * 0.02)
        self.pooler_bias = nn.Parameter(torch.zeros(width))
        self.classes = nn.Parameter(torch.randn(2, width) * 0.02)
        self.classes_bias = nn.Parameter(torch.zeros(2))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Logits of both heads."""
        made = super().forward(batch)
        asked = batch.targets.get("sentence_order")
        if asked is not None:
            rows = asked.indices // batch.ids.shape[1]
            pooled = torch.tanh(self.hidden(batch)[rows, 0] @ self.pooler.T + self.pooler_bias)
            made["sentence_order"] = pooled @ self.classes.T + self.classes_bias
        return made

    def ours(self) -> dict[str, Tensor]:
        """All weights under the names of our ``state_dict``."""
        own = {
            "pooler.weight": self.pooler,
            "pooler.bias": self.pooler_bias,
            "classifier.weight": self.classes,
            "classifier.bias": self.classes_bias,
        }
        return super().ours() | {
            f"heads.sentence_order.{name}": tensor.detach().clone() for name, tensor in own.items()
        }


def boundaries(probe: Probe) -> dict[str, Targets]:
    """Spans of one token and more in both sequences of a probe, also one that is as long as can be.

    Sequences of 24 and 13 tokens: spans 1-2, 4, 6-20 of the first, 3-11 of the second.
    """
    spans = [(1, 2), (4, 4), (6, 20), (27, 35)]
    asked = [(first - 1, last + 1, at) for first, last in spans for at in range(last - first + 1)]
    left, right, index = torch.tensor(asked).unbind(1)
    extra = {"right_place": right, "index": index}
    return {"span_boundary": Targets(left, torch.zeros_like(left), extra)}


def orders(probe: Probe) -> dict[str, Targets]:
    """Both sequences of a probe."""
    return {"sentence_order": probe.firsts}
