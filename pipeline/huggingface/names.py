"""Tensor names: one table a family, read in both directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor


class TensorError(ValueError):
    """Weights that do not fit a model. ``problems`` holds one sentence for each tensor."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


ENCODER = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.segment": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "blocks.*.attention.query": "encoder.layer.*.attention.self.query",
    "blocks.*.attention.key": "encoder.layer.*.attention.self.key",
    "blocks.*.attention.value": "encoder.layer.*.attention.self.value",
    "blocks.*.attention.output": "encoder.layer.*.attention.output.dense",
    "blocks.*.attention_norm": "encoder.layer.*.attention.output.LayerNorm",
    "blocks.*.feed_forward.up": "encoder.layer.*.intermediate.dense",
    "blocks.*.feed_forward.down": "encoder.layer.*.output.dense",
    "blocks.*.feed_forward_norm": "encoder.layer.*.output.LayerNorm",
}
"""The layers of BERT's body and of its like, below their model's name."""
TOKEN_HEAD = {
    "heads.masked_lm.dense": "cls.predictions.transform.dense",
    "heads.masked_lm.norm": "cls.predictions.transform.LayerNorm",
}
"""The layers of BERT's head for tokens."""
ENCODER_FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "activation": "hidden_act",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "layer_norm_eps": "layer_norm_eps",
    "initializer_std": "initializer_range",
}
"""What the configurations of all encoders say, ours and theirs."""
TABLE_FIELDS = {"max_positions": "max_position_embeddings", "num_segments": "type_vocab_size"}
"""The same of their tables, where ours have no more rows than we say."""
ENCODER_REQUIRED = {
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
"""Settings of theirs that have a single value here, which is also their default."""
OUR_FILE = "lexmill.safetensors"
"""What of an exported model transformers has no place for."""
TABLES = ("embeddings.word", "embeddings.position", "embeddings.segment")
"""Layers without bias."""


def expand(layers: Mapping[str, str], num_layers: int) -> dict[str, str]:
    """Tensors of layers: a weight each and, unless it is a table, a bias; ``*`` counts blocks."""
    return {
        f"{ours.replace('*', str(index))}.{kind}": f"{theirs.replace('*', str(index))}.{kind}"
        for ours, theirs in layers.items()
        for index in range(num_layers if "*" in ours else 1)
        for kind in (("weight",) if ours in TABLES else ("weight", "bias"))
    }


@dataclass(frozen=True)
class NameTable:
    """How the tensors of a family are called.

    Attributes:
        names: our name -> theirs, every parameter once that they have.
        our_ties: second names that our ``state_dict`` has for a tensor -> its first.
        their_copies: second names that their file holds too -> the first. Written, and required
            to agree where present.
        their_ties: as ``their_copies``, but not written: their loader ties them by itself.
        ours_alone: names of ours that their class has no place for; see :attr:`beside`.
        theirs_alone: names that their files may have and nothing here has a place for.
    """

    names: Mapping[str, str]
    our_ties: Mapping[str, str]
    their_copies: Mapping[str, str]
    their_ties: Mapping[str, str]
    ours_alone: Set[str] = frozenset()
    theirs_alone: Set[str] = frozenset()

    @property
    def beside(self) -> NameTable:
        """The table of a file of our own, which holds what their class has no place for."""
        return NameTable({name: name for name in sorted(self.ours_alone)}, {}, {}, {})

    def to_huggingface(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our ``state_dict`` under their names: contiguous fp32 copies in CPU memory.

        Raises:
            TensorError: the table and the state do not name the same tensors.
        """
        expected = self.names.keys() | self.our_ties.keys() | self.ours_alone
        problems = _differences(state.keys(), expected)
        if problems:
            raise TensorError(problems)
        theirs = {name: _fresh(state[ours]) for ours, name in self.names.items()}
        theirs |= {copy: theirs[name].clone() for copy, name in self.their_copies.items()}
        return theirs

    def from_huggingface(
        self, tensors: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]
    ) -> dict[str, Tensor]:
        """Their tensors as our ``state_dict``, fp32, with tied names sharing a tensor.

        Args:
            tensors: by their names.
            shapes: of our ``state_dict``.

        Raises:
            TensorError: a tensor is missing, unknown, of another shape, or not equal to the one
                that it must be tied to; every such tensor is named.
        """
        second = {**self.their_copies, **self.their_ties}
        required = set(self.names.values())
        problems = [
            f"{name}: differs from {first}, which it must be tied to"
            for name, first in second.items()
            if name in tensors
            and first in tensors
            and not torch.equal(tensors[name], tensors[first])
        ]
        problems += _differences(tensors.keys() - second.keys() - self.theirs_alone, required)
        problems += [
            f"{theirs}: shape {tuple(tensors[theirs].shape)}, expected {tuple(shapes[ours])}"
            for ours, theirs in self.names.items()
            if theirs in tensors and tensors[theirs].shape != torch.Size(shapes[ours])
        ]
        if problems:
            raise TensorError(sorted(problems))
        state = {ours: _fresh(tensors[theirs]) for ours, theirs in self.names.items()}
        return state | {tied: state[first] for tied, first in self.our_ties.items()}


def encoder_table(
    model: str,
    num_layers: int,
    further: Mapping[str, str] = MappingProxyType({}),
    *,
    our_ties: Mapping[str, str] = MappingProxyType({}),
    ours_alone: Set[str] = frozenset(),
) -> NameTable:
    """The table of BERT's body, below their ``model``'s name, and of its head for tokens.

    A pooler is theirs alone where no head of ours has it.

    Args:
        further: layers of other heads.
        our_ties, ours_alone: as in :class:`NameTable`, of other heads.
    """
    layers = {ours: f"{model}.{theirs}" for ours, theirs in ENCODER.items()} | TOKEN_HEAD
    names = expand({**layers, **further}, num_layers)
    pooler = {f"{model}.pooler.dense.{kind}" for kind in ("weight", "bias")}
    return NameTable(
        names={"heads.masked_lm.decoder.bias": "cls.predictions.bias", **names},
        our_ties={"heads.masked_lm.decoder.weight": "embeddings.word.weight", **our_ties},
        their_copies={"cls.predictions.decoder.bias": "cls.predictions.bias"},
        their_ties={"cls.predictions.decoder.weight": f"{model}.embeddings.word_embeddings.weight"},
        ours_alone=ours_alone,
        theirs_alone=pooler - set(names.values()),
    )


def _differences(given: Set[str], expected: Set[str]) -> list[str]:
    return [f"{name}: this tensor is missing" for name in sorted(expected - given)] + [
        f"{name}: unknown tensor" for name in sorted(given - expected)
    ]


def _fresh(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
