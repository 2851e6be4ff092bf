"""Prefix language modelling in one network (arXiv 1910.10683, section 3.2; 1905.03197).

A sequence of n tokens, specials counted, is split after s of them, s uniform in [1, n - 1]. All
tokens see the first s; of the rest each sees those before it and itself. Places s - 1 to n - 2
predict the token behind them. Who sees a token is told by the channel ``seen_by``, from which
``pipeline.nn.masks.by_viewers`` makes the attention mask.

    n = 6, s = 3
    place      0      1    2    3    4    5
    sequence   [CLS]  the  cat  sat  on   [SEP]
    seen_by    0      0    0    1    1    1          ALL ALL ALL LATER LATER LATER
    targets                2 -> sat, 3 -> on, 4 -> [SEP]

T5 splits the text before it adds an end; here specials are counted, so that places stay as they
are. A sequence of one token is all prefix. What feeds an encoder and a decoder instead is
:mod:`preprocessing.corruption.prefix_denoising`.
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
from preprocessing.corruption.causal import next_tokens, plain
from preprocessing.draws import integers

ALL, LATER, EARLIER = 0, 1, 2
"""Who sees a token: its whole sequence; itself and what follows; itself and what goes before."""


@config
class PrefixConfig(Scheme):
    """Visible prefixes. ``specials``: whether separators and start tokens are predicted, too."""

    kind: Literal["prefix"]
    specials: bool = True

    def attention(self) -> str:
        """The prefix sees all of itself, the rest what is before it."""
        return "seen_by"

    def bounds(self, context: Context, lengths: NDArray[np.int64]) -> Bounds:
        """As long as before; the shortest prefix leaves all other tokens to be predicted."""
        return Bounds(lengths, {"causal_lm": np.maximum(0, lengths - 1)})

    def corrupt(
        self, context: Context, sequences: Sequences, *, seed: int, epoch: int
    ) -> Corrupted:
        """Split each sequence, and ask for what stands behind the prefix."""
        lengths = sequences.lengths
        keys = sequences.keys(seed, "prefix", epoch)
        splits = 1 + integers(keys, 0, 0, np.maximum(1, lengths - 1))
        within = np.arange(len(sequences.tokens)) - np.repeat(sequences.offsets[:-1], lengths)
        seen_by = np.where(within < np.repeat(splits, lengths), ALL, LATER)
        targets = next_tokens(sequences)
        behind = seen_by[targets.places + 1] == LATER
        targets = Targets(targets.places[behind], targets.labels[behind])
        return Corrupted(
            sequences,
            {"causal_lm": targets if self.specials else plain(targets, context.special)},
            {"seen_by": seen_by},
        )
