"""Language modelling in both directions at once (ELMo, arXiv 1802.05365; allenai/bilm-tf).

Two networks that share their embeddings and softmax read the same sequence, one forwards and one
backwards; each place asks the first for the token behind it and the second for the token before
it. The frame ``cls_sep`` gives the start and end tokens that the reference puts around sentences;
both are predicted, the end by the forward network and the start by the backward one.

    place        0    1    2    3     forward_lm                        backward_lm
    sequence    <S>   hi  you  </S>   0 -> hi, 1 -> you, 2 -> </S>      1 -> <S>, 2 -> hi, 3 -> you
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
from preprocessing.corruption.causal import next_tokens


@config
class BidirectionalConfig(Scheme):
    """Next tokens and those before."""

    kind: Literal["bidirectional"]

    def attention(self) -> str:
        """Each direction sees its own past."""
        return "causal"

    def bounds(self, context: Context, lengths: NDArray[np.int64]) -> Bounds:
        """As long as before; every place but one has a target in either direction."""
        asked = np.maximum(0, lengths - 1)
        return Bounds(lengths, {"forward_lm": asked, "backward_lm": asked})

    def corrupt(
        self, context: Context, sequences: Sequences, *, seed: int, epoch: int
    ) -> Corrupted:
        """Ask every place for its two neighbours."""
        forward = next_tokens(sequences)
        backward = Targets(forward.places + 1, sequences.tokens[forward.places])
        return Corrupted(sequences, {"forward_lm": forward, "backward_lm": backward})
