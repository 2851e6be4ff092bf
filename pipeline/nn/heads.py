"""Heads: predictions at chosen places of the hidden states, and nowhere else.

A head takes the flattened positions to look at. At BERT's 15% that spares six sevenths of the
largest product of the model and of its ``[places, vocab]`` logits.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pipeline.nn.activations import Activation
from pipeline.nn.cross_entropy import Summed, all_scores, linear_cross_entropy
from pipeline.nn.products import Linear
from pipeline.nn.scores import VocabularyScores


def pick(
    hidden: Float[Tensor, "rows length hidden"], indices: Int[Tensor, " targets"]
) -> Float[Tensor, "targets hidden"]:
    """The hidden states at positions of the flattened ``[rows * length]`` micro-batch."""
    return hidden.flatten(0, 1).index_select(0, indices)


class TiedDecoder(nn.Module):
    """Scores over the vocabulary: the product with the word table, and a bias of its own.

    ``weight`` *is* the table's Parameter, listed once by ``parameters()``. It is also an
    attribute here, so that ZeRO 3 gathers it for this module's forward too.
    """

    def __init__(self, words: nn.Embedding) -> None:
        super().__init__()
        self.weight = words.weight
        self.bias = nn.Parameter(torch.zeros(words.num_embeddings))

    def forward(
        self,
        hidden: Float[Tensor, "targets width"],
        labels: Int[Tensor, " targets"] | None = None,
        silent: Bool[Tensor, ""] | None = None,
    ) -> Float[Tensor, "targets vocab"] | Summed:
        """The logits; where labels are given their summed cross-entropy, without the logits."""
        if labels is None:
            return all_scores(hidden, self.weight, self.bias)
        return linear_cross_entropy(hidden, self.weight, self.bias, labels, silent=silent)


class TokenHead(nn.Module):
    """A token at each place: dense, activation, norm, then the decoder tied to ``words``.

    The dense layer leads from ``hidden_size`` to the width of the word table.
    """

    def __init__(
        self,
        words: nn.Embedding,
        *,
        hidden_size: int,
        activation: Activation,
        layer_norm_eps: float,
    ) -> None:
        super().__init__()
        self.dense = Linear(hidden_size, words.embedding_dim)
        self.activation = activation
        self.norm = nn.LayerNorm(words.embedding_dim, eps=layer_norm_eps)
        self.decoder = TiedDecoder(words)

    def forward(
        self,
        hidden: Float[Tensor, "rows length hidden"],
        indices: Int[Tensor, " targets"],
    ) -> VocabularyScores:
        """The scores over the vocabulary."""
        transformed = self.norm(self.activation(self.dense(pick(hidden, indices))))
        return VocabularyScores(self.decoder, transformed)


class SpanBoundaryHead(nn.Module):
    """A token within a span, of its index there and of the two tokens that stand around the span.

        known = [hidden before the span, hidden behind it, embedding of the index]
        norm_2(activation(dense_2(norm_1(activation(dense_1(known))))))

    The decoder is tied to ``words``.

    Args:
        max_index: indices are below this.
        index_size: width of their embeddings.

    Source: Joshi et al. 2019 (SpanBERT), https://arxiv.org/abs/1907.10529, section 3.2.
    """

    def __init__(
        self,
        words: nn.Embedding,
        *,
        hidden_size: int,
        max_index: int,
        index_size: int,
        activation: Activation,
        layer_norm_eps: float,
    ) -> None:
        super().__init__()
        width = words.embedding_dim
        self.index = nn.Embedding(max_index, index_size)
        self.dense_1 = Linear(2 * hidden_size + index_size, hidden_size)
        self.norm_1 = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dense_2 = Linear(hidden_size, width)
        self.norm_2 = nn.LayerNorm(width, eps=layer_norm_eps)
        self.activation = activation
        self.decoder = TiedDecoder(words)

    def forward(
        self,
        hidden: Float[Tensor, "rows length hidden"],
        left: Int[Tensor, " targets"],
        right: Int[Tensor, " targets"],
        indices: Int[Tensor, " targets"],
    ) -> VocabularyScores:
        """The scores over the vocabulary.

        Args:
            left, right: flattened positions of the tokens before and behind the span.
            indices: of the tokens in their span, 0 for the first.
        """
        embedded = self.index(indices).to(hidden.dtype)
        known = torch.cat([pick(hidden, left), pick(hidden, right), embedded], dim=-1)
        once = self.norm_1(self.activation(self.dense_1(known)))
        twice = self.norm_2(self.activation(self.dense_2(once)))
        return VocabularyScores(self.decoder, twice)


class SequenceHead(nn.Module):
    """A class for the sequence whose first token stands at each place: tanh pooler, classifier."""

    def __init__(self, *, hidden_size: int, num_classes: int) -> None:
        super().__init__()
        self.pooler = Linear(hidden_size, hidden_size)
        self.classifier = Linear(hidden_size, num_classes)

    def forward(
        self,
        hidden: Float[Tensor, "rows length hidden"],
        indices: Int[Tensor, " targets"],
    ) -> Float[Tensor, "targets classes"]:
        """The logits over the classes."""
        logits: Tensor = self.classifier(torch.tanh(self.pooler(pick(hidden, indices))))
        return logits
