"""Every token predicts itself (T-TA, arXiv 2004.08097; joongbo/tta).

Nothing is masked, specials are predicted, too, as in the reference. That no place sees itself is
the matter of the network, whose attention leaves out the diagonal (``pipeline.nn.masks.others``).

    sequence  [CLS]  hi  you  [SEP]      masked_lm: 0 -> [CLS], 1 -> hi, 2 -> you, 3 -> [SEP]

Deviation: a sequence of a single token has no target, since there is nothing else to look at.
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
    Targets,
)


@config
class EveryConfig(Scheme):
    """All tokens are targets."""

    kind: Literal["every"]

    def attention(self) -> str:
        """No token sees itself."""
        return "others"

    def bounds(self, context: Context, lengths: NDArray[np.int64]) -> Bounds:
        """As long as before, with as many targets."""
        return Bounds(lengths, {"masked_lm": lengths * (lengths > 1)})

    def corrupt(
        self, context: Context, sequences: Sequences, *, seed: int, epoch: int
    ) -> Corrupted:
        """Ask every place for its own token."""
        lengths = sequences.lengths
        places = np.flatnonzero(np.repeat(lengths > 1, lengths))
        return Corrupted(sequences, {"masked_lm": Targets(places, sequences.tokens[places])})
