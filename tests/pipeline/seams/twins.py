"""Three tiny models that ask of the seams what the later families will, and nothing else.

- ``PairTwin``: a generator and a discriminator that share embeddings without sharing gradients,
  with labels that depend on what the generator draws (ELECTRA, DeBERTa-v3).
- ``StreamTwin``: attention over what was kept of the windows before (Transformer-XL).
- ``TranslatorTwin``: packed encoder and decoder rows (T5, BART).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.batch import IGNORED, Batch, Memory, Targets
from pipeline.flops import (
    CROSS_PAIRS,
    DECODER,
    ROWS,
    TOKENS,
    Cost,
    Site,
    attention,
    cost,
    targets,
    total,
)
from pipeline.nn.activations import activation
from pipeline.nn.attending import Attending, Dense, Kernel
from pipeline.nn.attention import ScaledDotProduct, SelfAttention, merge_heads, split_heads
from pipeline.nn.blocks import PostNormBlock, Stack
from pipeline.nn.embeddings import Embeddings
from pipeline.nn.feed_forward import FeedForward
from pipeline.nn.heads import SequenceHead, TokenHead
from pipeline.nn.initialization import Whole, initialize
from pipeline.nn.masks import IndexMask, causal
from pipeline.nn.model import LABELS, MEMORY, Outputs, PretrainingModel
from pipeline.nn.scores import Scores, logits
from pipeline.objectives.base import Loss, classification_loss

HIDDEN, HEADS, LENGTH, MEMORY_LENGTH = 32, 2, 64, 24
DROPOUT = 0.1


class Classified:
    """The cross-entropy of any output."""

    def __init__(self, name: str, weight: float = 1.0) -> None:
        self.name, self.weight, self.probability = name, weight, 1.0

    def __call__(self, outputs: Mapping[str, Scores], batch: Batch) -> Loss:
        return classification_loss(outputs[self.name], batch.targets[self.name].labels)


class Twin(PretrainingModel):
    ruled = False

    def __init__(self, vocab_size: int, dropout: float) -> None:
        super().__init__()
        self.vocab_size, self.dropout = vocab_size, dropout
        self.attending = Attending(dropout, HIDDEN // HEADS, rule=self.ruled)

    def initialize(self, whole: Whole = nullcontext) -> None:
        initialize(self, 0.05, whole=whole)

    def embeddings(self) -> Embeddings:
        return Embeddings(
            vocab_size=self.vocab_size,
            hidden_size=HIDDEN,
            max_positions=LENGTH,
            num_segments=2,
            layer_norm_eps=1e-12,
            dropout=self.dropout,
        )

    def block(self, attention: nn.Module | None = None) -> PostNormBlock:
        return PostNormBlock(
            attention or SelfAttention(HIDDEN, HEADS, ScaledDotProduct(self.dropout)),
            FeedForward(HIDDEN, 2 * HIDDEN, activation("gelu")),
            hidden_size=HIDDEN,
            layer_norm_eps=1e-12,
            dropout=self.dropout,
        )

    def token_head(self, words: nn.Embedding) -> TokenHead:
        return TokenHead(
            words, hidden_size=HIDDEN, activation=activation("gelu"), layer_norm_eps=1e-12
        )


class Disentangled(nn.Module):
    """The word vectors of another network, which gets no gradient from here, and a correction.

    ``weight`` is the other's Parameter, listed here too so that ZeRO 3 gathers it here too.
    """

    def __init__(self, words: nn.Embedding) -> None:
        super().__init__()
        self.weight = words.weight
        self.delta = nn.Parameter(torch.zeros(words.num_embeddings, words.embedding_dim))

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight.detach()) + F.embedding(ids, self.delta)


class PairTwin(Twin):
    """Targets: ``masked_lm`` with the column ``uniform``, ``replaced_tokens``."""

    outputs = ("masked_lm", "replaced_tokens")

    def __init__(self, vocab_size: int, dropout: float = DROPOUT) -> None:
        super().__init__(vocab_size, dropout)
        self.generator_embeddings = self.embeddings()
        self.generator = Stack([self.block()])
        self.generator_head = self.token_head(self.generator_embeddings.word)
        self.words = Disentangled(self.generator_embeddings.word)
        self.positions = nn.Embedding(LENGTH, HIDDEN)
        self.norm = nn.LayerNorm(HIDDEN)
        self.discriminator = Stack([self.block(), self.block()])
        self.discriminator_head = SequenceHead(hidden_size=HIDDEN, num_classes=2)
        self.initialize()

    def cost(self, site: Site) -> Cost:
        """The generator's scores are computed for the draws, and once more for the loss."""
        picked = targets("masked_lm")
        return (
            total((self.generator, self.discriminator), site)
            + cost(self.generator_head, picked)
            + cost(self.generator_head.decoder, picked).repeated()
            + cost(self.discriminator_head, targets("replaced_tokens"))
        )

    def forward(self, batch: Batch) -> Outputs:
        hidden = self.generator_embeddings(batch.ids, batch.positions, batch.segment_ids)
        mask = self.attending.within(batch, like=hidden)
        picks, asked = batch.targets["masked_lm"], batch.targets["replaced_tokens"]
        scores = self.generator_head(self.generator(hidden, mask), picks.indices)
        original = put(batch.ids, picks, picks.labels)
        shown = put(batch.ids, picks, sample(logits(scores), picks.extra["uniform"]))
        embedded = self.norm(self.words(shown) + self.positions(batch.positions))
        replaced = (shown != original).flatten()[asked.indices].long()
        judged = self.discriminator_head(self.discriminator(embedded, mask), asked.indices)
        return {
            "masked_lm": scores,
            "replaced_tokens": judged,
            f"{LABELS}replaced_tokens": replaced,
        }


@torch.no_grad()
def sample(logits: Tensor, uniform: Tensor) -> Tensor:
    """The first id at which the sums of the probabilities exceed ``uniform``, ``[targets]``."""
    sums = logits.double().softmax(-1).cumsum(-1)
    return (sums <= uniform.unsqueeze(-1)).sum(-1).clamp(max=logits.shape[-1] - 1)


def put(ids: Tensor, targets: Targets, values: Tensor) -> Tensor:
    """``ids`` with other values at the targets; padded targets go to a place that is cut off."""
    places = targets.indices.where(targets.labels != IGNORED, ids.numel())
    flat = torch.cat([ids.flatten(), ids.new_zeros(1)]).scatter(0, places, values)
    return flat[:-1].view_as(ids)


class MemoryAttention(nn.Module):
    """Causal attention over kept and own states, with a learned bias by distance."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = (
            nn.Linear(HIDDEN, HIDDEN) for _ in range(4)
        )
        self.bias = nn.Embedding(MEMORY_LENGTH + LENGTH, HEADS)
        self.core = ScaledDotProduct(dropout)

    def cost(self, site: Site) -> Cost:
        """Keys and values of the memory, too, and each token's pairs with it."""
        kept = [cost(linear, Site(ROWS, "")) for linear in (self.key, self.value)] * MEMORY_LENGTH
        pairs = [attention(site.places, HIDDEN)] * MEMORY_LENGTH + [attention(site.pairs, HIDDEN)]
        linears = (self.query, self.key, self.value, self.output)
        return sum((*kept, *pairs), total(linears, site))

    def forward(self, hidden: Tensor, kept: Tensor, filled: Tensor) -> Tensor:
        states = torch.cat([kept.to(hidden.dtype), hidden], dim=1)
        query = split_heads(self.query(hidden), HEADS)
        key, value = (split_heads(f(states), HEADS) for f in (self.key, self.value))
        before, length = kept.shape[1], hidden.shape[1]
        places = torch.arange(before + length, device=hidden.device)
        distance = places[before:, None] - places[None]
        visible = (distance >= 0) & (places >= before - filled.view(-1, 1, 1, 1))
        bias = self.bias(distance.clamp(min=0)).permute(2, 0, 1)
        scores = bias.unsqueeze(0).masked_fill(~visible, float("-inf"))
        return self.output(merge_heads(self.core(query, key, value, Dense(scores))))


class StreamTwin(Twin):
    """Targets: ``causal_lm``. Keeps the inputs of its layers, and how many of them are real."""

    ruled = True
    outputs = ("causal_lm",)
    attention_rules = frozenset({"causal"})

    def __init__(self, vocab_size: int, dropout: float = DROPOUT) -> None:
        super().__init__(vocab_size, dropout)
        self.words = nn.Embedding(vocab_size, HIDDEN)
        self.layers = Stack(self.block(MemoryAttention(dropout)) for _ in range(2))
        self.head = self.token_head(self.words)
        self.initialize()

    def cost(self, site: Site) -> Cost:
        return cost(self.layers, site) + cost(self.head, targets("causal_lm"))

    def initial_memory(self, rows: int) -> Memory:
        states = {f"layer_{n}": torch.zeros(rows, MEMORY_LENGTH, HIDDEN) for n in range(2)}
        return {**states, "filled": torch.zeros(rows, dtype=torch.int64)}

    def forward(self, batch: Batch) -> Outputs:
        rows, length = batch.ids.shape
        memory = batch.memory
        if memory is None:
            memory = {n: t.to(batch.ids.device) for n, t in self.initial_memory(rows).items()}
        hidden, kept = self.words(batch.ids), {}
        for number, layer in enumerate(self.layers):
            before = memory[f"layer_{number}"]
            both = torch.cat([before.to(hidden.dtype), hidden], dim=1)
            kept[f"{MEMORY}layer_{number}"] = both[:, -MEMORY_LENGTH:]
            hidden = self.layers.call(layer, hidden, before, memory["filled"])
        filled = (memory["filled"] + length).clamp(max=MEMORY_LENGTH)
        scores = self.head(hidden, batch.targets["causal_lm"].indices)
        return {"causal_lm": scores, **kept, f"{MEMORY}filled": filled}


class CrossAttention(nn.Module):
    """Attention of the decoder to the encoder's states of the same sequence."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = (
            nn.Linear(HIDDEN, HIDDEN) for _ in range(4)
        )
        self.core = ScaledDotProduct(dropout)

    def cost(self, site: Site) -> Cost:
        """Keys and values are the encoder's."""
        own, encoded = total((self.query, self.output), site), total((self.key, self.value), TOKENS)
        return own + encoded + attention(CROSS_PAIRS, HIDDEN)

    def forward(self, hidden: Tensor, encoded: Tensor, kernel: Kernel) -> Tensor:
        query = split_heads(self.query(hidden), HEADS)
        key, value = (split_heads(f(encoded), HEADS) for f in (self.key, self.value))
        return self.output(merge_heads(self.core(query, key, value, kernel)))


class TellingBlock(nn.Module):
    """A block that looks at the encoder, too."""

    def __init__(self, own: PostNormBlock, dropout: float) -> None:
        super().__init__()
        self.own = own
        self.cross = CrossAttention(dropout)
        self.norm = nn.LayerNorm(HIDDEN)

    def cost(self, site: Site) -> Cost:
        return total((self.own, self.cross), site)

    def forward(self, hidden: Tensor, kernel: Kernel, encoded: Tensor, belongs: Kernel) -> Tensor:
        hidden = self.own(hidden, kernel)
        return self.norm(hidden + self.cross(hidden, encoded, belongs))


class TranslatorTwin(Twin):
    """Targets: ``denoising``, of the decoder."""

    ruled = True
    outputs = ("denoising",)

    def __init__(self, vocab_size: int, dropout: float = DROPOUT) -> None:
        super().__init__(vocab_size, dropout)
        self.embedded = self.embeddings()
        self.encoder = Stack([self.block()])
        self.decoder = Stack(TellingBlock(self.block(), dropout) for _ in range(2))
        self.head = self.token_head(self.embedded.word)
        self.initialize()

    def cost(self, site: Site) -> Cost:
        return (
            cost(self.encoder, site)
            + cost(self.decoder, DECODER)
            + cost(self.head, targets("denoising"))
        )

    def forward(self, batch: Batch) -> Outputs:
        told = batch.decoder
        assert told is not None
        embedded = self._embed(batch)
        encoded = self.encoder(embedded, self.attending.within(batch, like=embedded))
        rows, queries = told.ids.shape
        belongs = self.attending.over(
            belonging(told.sequence_ids, batch.sequence_ids),
            rows,
            queries,
            batch.ids.shape[1],
            like=embedded,
        )
        own = self.attending.within(told, causal, like=embedded)
        hidden = self.decoder(self._embed(told), own, encoded, belongs)
        return {"denoising": self.head(hidden, batch.targets["denoising"].indices)}

    def _embed(self, batch: Batch) -> Tensor:
        return self.embedded(batch.ids, batch.positions, batch.segment_ids)


def belonging(queries: Tensor, keys: Tensor) -> IndexMask:
    """A decoder's token sees its own sequence at the encoder; padding everything.

    Rows of the encoder may be full where the decoder's are padded, and a query without any key
    would be NaN, in all gradients too.
    """

    def mask(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own = queries[row, query]
        return (own == keys[row, key]) | (own == 0)

    return mask


TWINS = {"pair": PairTwin, "stream": StreamTwin, "translator": TranslatorTwin}
WEIGHTS = {"replaced_tokens": 50.0}
"""Of the losses, where not 1 (ELECTRA)."""
