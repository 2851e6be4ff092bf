"""What a model sees: a micro-batch of rows, and the places in it where something is predicted.

A row of fixed length holds one or several whole sequences. ``sequence_ids`` numbers them within
their row from 1; 0 is padding. Attention never crosses sequences, and positions restart at each.

    ids           [CLS] a b [SEP]  [CLS] c [SEP]  [PAD]
    sequence_ids      1 1 1     1      2 2     2      0
    positions         0 1 2     3      0 1     2      0

An encoder-decoder's batch has a second one inside, its ``decoder``: the sequence 1 of a decoder's
row belongs to the sequence 1 of the row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import torch
from jaxtyping import Int, Int32
from torch import Tensor

IGNORED = -100
"""The label of a padded target: no loss, no count."""

Memory: TypeAlias = Mapping[str, Tensor]
"""What a model carries from one micro-batch of a stream to the next, ``[rows, ...]`` each."""


@dataclass(frozen=True)
class Targets:
    """Places to predict and what belongs there, padded to a static count.

    Attributes:
        indices: positions in the flattened ``[rows * length]`` micro-batch (0 where padded).
        labels: the class or token id that belongs there; ``IGNORED`` where padded.
        extra: what else an objective or a head wants to know of each target, by name; columns
            named ``*_place`` are positions as ``indices`` are.
        of_decoder: whether the positions are the decoder's.
    """

    indices: Int[Tensor, " targets"]
    labels: Int[Tensor, " targets"]
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    of_decoder: bool = False

    def map(self, change: Callable[[Tensor], Tensor]) -> Targets:
        """The same targets with every tensor changed."""
        extra = {name: change(values) for name, values in self.extra.items()}
        return replace(self, indices=change(self.indices), labels=change(self.labels), extra=extra)


@dataclass(frozen=True)
class Batch:
    """One micro-batch.

    Attributes:
        ids: token ids, padded.
        sequence_ids: 0 for padding, 1, 2, ... for the sequences of the row.
        positions: position within the sequence, 0 where padded.
        segment_ids: 0 for the first segment of a pair, 1 for the second, 0 where padded.
        targets: by the name of the objective that predicts them (``masked_lm``,
            ``next_sentence``).
        channels: what else a model wants to know of each token, by name.
        decoder: what its decoder sees.
        memory: what the model kept of the micro-batch before, where it carries something.
        boundaries: where the sequences of the flattened rows begin, padding counted as one, and
            their end; only on the way to kernels that want it.
    """

    ids: Int[Tensor, "rows length"]
    sequence_ids: Int[Tensor, "rows length"]
    positions: Int[Tensor, "rows length"]
    segment_ids: Int[Tensor, "rows length"]
    targets: Mapping[str, Targets] = field(default_factory=dict)
    channels: Mapping[str, Int[Tensor, "rows length"]] = field(default_factory=dict)
    decoder: Batch | None = None
    memory: Memory | None = None
    boundaries: Int32[Tensor, " sequences_and_1"] | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch with every tensor changed."""
        return Batch(
            ids=change(self.ids),
            sequence_ids=change(self.sequence_ids),
            positions=change(self.positions),
            segment_ids=change(self.segment_ids),
            targets={name: targets.map(change) for name, targets in self.targets.items()},
            channels={name: change(values) for name, values in self.channels.items()},
            decoder=self.decoder.map(change) if self.decoder is not None else None,
            memory=None
            if self.memory is None
            else {name: change(values) for name, values in self.memory.items()},
            boundaries=None if self.boundaries is None else change(self.boundaries),
        )

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, for copies to a GPU that do not wait."""
        return self.map(Tensor.pin_memory)

    def weightless(self) -> Batch:
        """The same shapes with nothing to predict: what a rank without work computes."""
        return replace(
            self,
            targets={
                name: replace(targets, labels=torch.full_like(targets.labels, IGNORED))
                for name, targets in self.targets.items()
            },
        )

    def named(self) -> dict[str, Tensor]:
        """Every tensor by its name: ``ids``, ``targets/masked_lm/labels``, ``decoder/ids``, ..."""
        named = {name: getattr(self, name) for name in _PER_TOKEN}
        named |= {f"channels/{name}": values for name, values in self.channels.items()}
        for name, targets in self.targets.items():
            side = "decoder_targets" if targets.of_decoder else "targets"
            named |= {
                f"{side}/{name}/indices": targets.indices,
                f"{side}/{name}/labels": targets.labels,
            }
            named |= {f"{side}/{name}/extra/{key}": column for key, column in targets.extra.items()}
        if self.decoder is not None:
            named |= {f"decoder/{name}": values for name, values in self.decoder.named().items()}
        if self.memory is not None:
            named |= {f"memory/{name}": values for name, values in self.memory.items()}
        return named

    @staticmethod
    def from_named(named: Mapping[str, Tensor]) -> Batch:
        """The inverse of :meth:`named`."""

        def below(prefix: str) -> dict[str, Tensor]:
            begin = f"{prefix}/"
            return {n.removeprefix(begin): t for n, t in named.items() if n.startswith(begin)}

        targets = {}
        for side in ("targets", "decoder_targets"):
            of_side = below(side)
            for objective in dict.fromkeys(name.split("/")[0] for name in of_side):
                own = below(f"{side}/{objective}")
                extra = below(f"{side}/{objective}/extra")
                targets[objective] = Targets(
                    own["indices"], own["labels"], extra, of_decoder=side != "targets"
                )
        decoder = below("decoder")
        return Batch(
            **{name: named[name] for name in _PER_TOKEN},
            targets=targets,
            channels=below("channels"),
            decoder=Batch.from_named(decoder) if decoder else None,
            memory=below("memory") or None,
        )


_PER_TOKEN = ("ids", "sequence_ids", "positions", "segment_ids")
