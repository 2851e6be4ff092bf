"""How much arithmetic a training step is, from the shapes of weights and batches alone.

Matrix products are counted: ``[m, k]`` by ``[k, n]`` is ``2 m k n`` operations (FLOPs), and what is
trained takes three of its size, one forward and two backward. Nothing else is: look-ups, norms,
softmax, activations, dropout and the optimizer's step cost time and few operations, and what they
cost shows as a lower utilization. There are two accounts:

- *real*: for tokens that are no padding, targets that count, and pairs of tokens of one sequence,
  whether or not a rule such as a causal one hides some of them.
- *spent*: for all places of the rows, padded targets too, all pairs that the attention path
  computes, and what the backward pass computes again.

A module that is none of the building blocks says itself what it computes, by a method
``cost(site)``; so does a model whose parts are not plain stacks and a ``ModuleDict`` of heads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn

from pipeline.batch import Batch
from pipeline.nn.attending import PathName
from pipeline.nn.attention import ScaledDotProduct, SelfAttention
from pipeline.nn.blocks import PostNormBlock, Stack
from pipeline.nn.embeddings import Embeddings, FactorizedEmbeddings
from pipeline.nn.feed_forward import FeedForward
from pipeline.nn.heads import SequenceHead, SpanBoundaryHead, TiedDecoder, TokenHead
from pipeline.nn.model import PretrainingModel
from pipeline.nn.products import Linear

ROWS, CROSS_PAIRS = "rows", "cross/pairs"
"""Counts beside those of a :class:`Site`; a cross pair is a decoder's token and an encoder's."""
_FLEX_BLOCK = 128


class Site(NamedTuple):
    """What a module is computed for, as names of counts.

    Attributes:
        places: each of which is multiplied with the module's weights.
        pairs: of places, in which attention mixes them.
    """

    places: str
    pairs: str


TOKENS = Site("tokens", "pairs")
DECODER = Site("decoder/tokens", "decoder/pairs")


def targets(name: str) -> Site:
    """The targets of that name; nothing attends from one to another."""
    return Site(f"targets/{name}", "")


@dataclass(frozen=True)
class Cost:
    """Multiplications by what they are done for: how many of them for each.

    Attributes:
        forward: in a forward pass that is trained.
        again: computed once more and not trained.
        scores: queries by keys, which fused kernels compute again in the backward pass.
    """

    forward: Counter[str] = field(default_factory=Counter)
    again: Counter[str] = field(default_factory=Counter)
    scores: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Cost) -> Cost:
        """Both."""
        return Cost(
            self.forward + other.forward, self.again + other.again, self.scores + other.scores
        )

    def repeated(self) -> Cost:
        """What a forward pass costs where it is only computed again."""
        return Cost(again=self.forward)


@runtime_checkable
class Telling(Protocol):
    """A module that says itself what it computes."""

    def cost(self, site: Site) -> Cost:
        """Its products where it is called with the places of ``site``."""


def cost(module: nn.Module, site: Site = TOKENS) -> Cost:
    """The products of a module or model.

    Args:
        site: what a module is called with; a model's parts have their own.

    Raises:
        ValueError: the module, or one inside, is of an unknown type, whose cost must not be
            taken for nothing.
    """
    if isinstance(module, Telling):
        return module.cost(site)
    if isinstance(module, PretrainingModel):
        return _of_model(module)
    if (known := _KNOWN.get(type(module))) is not None:
        return known(module, site)
    raise ValueError(
        f"the FLOPs of {type(module).__name__} are not known; give it a method "
        "cost(site), see pipeline.flops"
    )


def total(modules: Iterable[nn.Module], site: Site) -> Cost:
    """The products of several modules, or of one as often as it is called."""
    return sum((cost(module, site) for module in modules), Cost())


def attention(pairs: str, width: int) -> Cost:
    """Queries by keys and weights by values, of all heads, for each pair."""
    return Cost(forward=Counter({pairs: 2 * width}), scores=Counter({pairs: width}))


class Flops(NamedTuple):
    """Of a training step or a part of it; see the module's docstring."""

    real: int
    spent: int


class Meter:
    """Counts the FLOPs of micro-batches on the host.

    Args:
        own: what is counted: the cost of a model, or of a part of it.
        path: how attention is computed.
        fused: whether attention keeps no weights for the backward pass.
    """

    def __init__(self, own: Cost, path: PathName, *, fused: bool) -> None:
        self._path = path
        self._real = own.forward + own.forward + own.forward
        self._spent = self._real + own.again + (own.scores if fused else Counter())

    def __call__(self, batch: Batch) -> Flops:
        """The FLOPs of one micro-batch, forward and backward."""
        return Flops(_flops(self._real, real(batch)), _flops(self._spent, spent(batch, self._path)))


def meter(model: PretrainingModel, device: torch.device, dtype: torch.dtype) -> Meter:
    """The meter of a model that is trained there, with products in that precision.

    Raises:
        ValueError: see :func:`cost`.
    """
    fused = fuses(model, device)
    return Meter(cost(model), model.attention_path(device, dtype).name, fused=fused)


def fuses(model: PretrainingModel, device: torch.device) -> bool:
    """Whether its attention computes the scores again in the backward pass instead of keeping them.

    So do all kernels on GPUs; torch's on CPUs do where nothing is dropped.
    """
    return device.type == "cuda" or not model.attending.dropout


def real(batch: Batch) -> Counter[str]:
    """What a batch holds beside padding, on the host.

    sequence_ids  1 1 2 0     ->   rows 1, tokens 3, pairs 2 * 2 + 1 * 1 = 5
    """
    kinds = _kinds(batch)
    lengths = _lengths(batch.sequence_ids, kinds)[:, 1:]
    counts = {
        ROWS: int(lengths.any(1).sum()),
        TOKENS.places: int(lengths.sum()),
        TOKENS.pairs: int(lengths.square().sum()),
    }
    if batch.decoder is not None:
        own = _lengths(batch.decoder.sequence_ids, kinds)[:, 1:]
        counts[DECODER.places] = int(own.sum())
        counts[DECODER.pairs] = int(own.square().sum())
        counts[CROSS_PAIRS] = int((own * lengths).sum())
    for name, asked in batch.targets.items():
        counts[targets(name).places] = int((asked.labels >= 0).sum())
    return Counter(counts)


def spent(batch: Batch, path: PathName) -> Counter[str]:
    """What is computed for a batch on an attention path, padding included.

        sequence_ids  1 1 2 0     ->   rows 1, tokens 4, pairs 4 * 4 = 16 (dense)
                                                         pairs 4 + 1 + 1 = 6 (varlen)

    FlexAttention leaves out blocks of 128 by 128 in which no two tokens share a sequence; blocks
    that some further rule hides whole are counted.
    """
    counts = {
        ROWS: len(batch.ids),
        TOKENS.places: batch.ids.numel(),
        TOKENS.pairs: _computed(batch.sequence_ids, batch.sequence_ids, path),
    }
    if batch.decoder is not None:
        own = batch.decoder.sequence_ids
        inside: PathName = "dense" if path == "dense" else "flex"  # more than whole sequences
        counts[DECODER.places] = own.numel()
        counts[DECODER.pairs] = _computed(own, own, inside)
        counts[CROSS_PAIRS] = _computed(own, batch.sequence_ids, inside)
    for name, asked in batch.targets.items():
        counts[targets(name).places] = len(asked.labels)
    return Counter(counts)


def _flops(each: Counter[str], counts: Counter[str]) -> int:
    return 2 * sum(multiplications * counts[name] for name, multiplications in each.items())


def _computed(queries: Tensor, keys: Tensor, path: PathName) -> int:
    """Pairs of places that a path computes, from the sequence ids ``[rows, length]`` of both."""
    if path == "dense":
        return queries.numel() * keys.shape[1]
    kinds = int(max(queries.max(), keys.max())) + 1
    if path == "varlen":
        return int((_lengths(queries, kinds) * _lengths(keys, kinds)).sum())
    shared = _in_blocks(queries, kinds) @ _in_blocks(keys, kinds).transpose(1, 2)
    return int((shared > 0).sum()) * _FLEX_BLOCK**2


def _kinds(batch: Batch) -> int:
    """One more than the highest sequence id."""
    sides = (batch, batch.decoder) if batch.decoder is not None else (batch,)
    return max(int(side.sequence_ids.max()) for side in sides) + 1


def _lengths(sequence_ids: Tensor, kinds: int) -> Int[Tensor, "rows kinds"]:
    """How many places of each row have each sequence id."""
    rows = len(sequence_ids)
    flat = sequence_ids + kinds * torch.arange(rows).unsqueeze(1)
    return torch.bincount(flat.flatten(), minlength=rows * kinds).view(rows, kinds)


def _in_blocks(sequence_ids: Tensor, kinds: int) -> Tensor:
    """``[rows, blocks, kinds]``: 1 where a block of a row holds a sequence id."""
    rows, length = sequence_ids.shape
    filled = F.pad(sequence_ids, (0, -length % _FLEX_BLOCK), value=kinds)
    blocks = filled.view(rows, -1, _FLEX_BLOCK).long()
    holds = torch.zeros(*blocks.shape[:2], kinds + 1).scatter_(2, blocks, 1.0)
    return holds[..., :kinds]


def _of_model(model: PretrainingModel) -> Cost:
    """Embeddings and stacks compute all tokens, and heads the targets of their name."""
    found = Cost()
    for name, child in model.named_children():
        if isinstance(child, nn.ModuleDict) and set(child) <= set(model.outputs):
            heads = (cost(head, targets(output)) for output, head in child.items())
            found = sum(heads, found)
        elif isinstance(child, Embeddings | Stack) or type(child) in _WITHOUT_COST:
            found += cost(child, TOKENS)
        else:
            raise ValueError(
                f"the FLOPs of {type(model).__name__} are not known, for nothing says how often "
                f"its {name} ({type(child).__name__}) is called; give the model a method "
                "cost(site), see pipeline.flops"
            )
    return found


def _of_stack(stack: Stack, site: Site) -> Cost:
    """A shared block counts as often as it stands there."""
    found = total(stack, site)
    return found + found.repeated() if stack.recomputes else found


def _of_attention(module: SelfAttention, site: Site) -> Cost:
    if type(module.core) is not ScaledDotProduct:
        core = cost(module.core, site)
    else:
        assert site.pairs, "no attention among targets"
        core = attention(site.pairs, module.value.out_features)
    return total((module.query, module.key, module.value, module.output), site) + core


def _weights(site: Site, count: int) -> Cost:
    return Cost(forward=Counter({site.places: count}))


_WITHOUT_COST = (Embeddings, nn.Embedding, nn.LayerNorm, nn.Dropout)
_KNOWN: dict[type[nn.Module], Callable[[Any, Site], Cost]] = {
    **dict.fromkeys(_WITHOUT_COST, lambda module, site: Cost()),
    **dict.fromkeys(
        (nn.Linear, Linear),
        lambda linear, site: _weights(site, linear.in_features * linear.out_features),
    ),
    # At ZeRO 3 the weight is a part of itself.
    TiedDecoder: lambda decoder, site: _weights(
        site, getattr(decoder.weight, "ds_numel", decoder.weight.numel())
    ),
    SelfAttention: _of_attention,
    FactorizedEmbeddings: lambda module, site: cost(module.projection, site),
    FeedForward: lambda module, site: total((module.up, module.down), site),
    PostNormBlock: lambda block, site: total((block.attention, block.feed_forward), site),
    Stack: _of_stack,
    TokenHead: lambda head, site: total((head.dense, head.decoder), site),
    SequenceHead: lambda head, site: total((head.pooler, head.classifier), site),
    SpanBoundaryHead: lambda head, site: total((head.dense_1, head.dense_2, head.decoder), site),
}
"""By exact type: what overrides a method may compute something else."""
