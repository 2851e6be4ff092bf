"""Language modelling from left to right (GPT, Radford et al. 2018; GPT-2, Radford et al. 2019).

Nothing is hidden: every place predicts the token behind it, and attention, which sees no later
token (``pipeline.nn.masks.causal``), makes that a task. A sequence's last place predicts nothing.

    place     0      1    2    3    4          predicts
    sequence  [CLS]  the  cat  sat  [SEP]      0 -> the, 1 -> cat, 2 -> sat, 3 -> [SEP]

``specials: false`` leaves out the last of these: for blocks cut from the middle of a document the
separator is no fact about the text. GPT-2 predicts it, since there it ends a document.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from configs.schema import config
from preprocessing.corruption.base import (
    Bounds,
    Context,
    Corrupted,
    Scheme,
    Sequences,
    SpecialIds,
    Targets,
)


@config
class CausalConfig(Scheme):
    """Next tokens. ``specials``: whether separators and start tokens are predicted, too."""

    kind: Literal["causal"]
    specials: bool = True

    def attention(self) -> str:
        """No token sees later ones."""
        return "causal"

    def bounds(self, context: Context, lengths: NDArray[np.int64]) -> Bounds:
        """As long as before; every place but the last has a target."""
        return Bounds(lengths, {"causal_lm": np.maximum(0, lengths - 1)})

    def corrupt(
        self, context: Context, sequences: Sequences, *, seed: int, epoch: int
    ) -> Corrupted:
        """Ask every place for the token behind it."""
        targets = next_tokens(sequences)
        return Corrupted(
            sequences, {"causal_lm": targets if self.specials else plain(targets, context.special)}
        )


def next_tokens(sequences: Sequences) -> Targets:
    """What stands behind each token of its sequence; the last has no target."""
    has_next = np.ones(len(sequences.tokens), dtype=np.bool_)
    has_next[sequences.offsets[1:][sequences.lengths > 0] - 1] = False
    places = np.flatnonzero(has_next)
    return Targets(places, sequences.tokens[places + 1])


def plain(targets: Targets, special: SpecialIds) -> Targets:
    """Those of the targets that ask for a plain token."""
    wanted = (targets.labels != special.start) & (targets.labels != special.separator)
    return Targets(targets.places[wanted], targets.labels[wanted])
