"""What a model sees: a micro-batch of rows, and the places in it where something is predicted.

A row of fixed length holds one or several whole sequences. ``sequence_ids`` numbers them within
their row from 1; 0 is padding. Attention never crosses sequences, and positions restart at each.

    ids           [CLS] a b [SEP]  [CLS] c [SEP]  [PAD]
    sequence_ids      1 1 1     1      2 2     2      0
    positions         0 1 2     3      0 1     2      0
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Int
from torch import Tensor

IGNORED = -100
"""The label of a padded target: no loss, no count."""


@dataclass(frozen=True)
class Targets:
    """Places to predict and what belongs there, padded to a static count.

    Attributes:
        indices: positions in the flattened ``[rows * length]`` micro-batch (0 where padded).
        labels: the class or token id that belongs there; ``IGNORED`` where padded.
    """

    indices: Int[Tensor, " targets"]
    labels: Int[Tensor, " targets"]

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Targets:
        """The same targets on another device."""
        return Targets(
            self.indices.to(device, non_blocking=non_blocking),
            self.labels.to(device, non_blocking=non_blocking),
        )


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
    """

    ids: Int[Tensor, "rows length"]
    sequence_ids: Int[Tensor, "rows length"]
    positions: Int[Tensor, "rows length"]
    segment_ids: Int[Tensor, "rows length"]
    targets: Mapping[str, Targets] = field(default_factory=dict)

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        return Batch(
            ids=self.ids.to(device, non_blocking=non_blocking),
            sequence_ids=self.sequence_ids.to(device, non_blocking=non_blocking),
            positions=self.positions.to(device, non_blocking=non_blocking),
            segment_ids=self.segment_ids.to(device, non_blocking=non_blocking),
            targets={
                name: targets.to(device, non_blocking=non_blocking)
                for name, targets in self.targets.items()
            },
        )

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, for copies to a GPU that do not wait."""
        return Batch(
            ids=self.ids.pin_memory(),
            sequence_ids=self.sequence_ids.pin_memory(),
            positions=self.positions.pin_memory(),
            segment_ids=self.segment_ids.pin_memory(),
            targets={
                name: Targets(targets.indices.pin_memory(), targets.labels.pin_memory())
                for name, targets in self.targets.items()
            },
        )

    def weightless(self) -> Batch:
        """The same shapes with nothing to predict: what a rank without work computes."""
        return replace(
            self,
            targets={
                name: Targets(targets.indices, torch.full_like(targets.labels, IGNORED))
                for name, targets in self.targets.items()
            },
        )
