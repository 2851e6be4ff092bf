"""Masked tokens as BERT has them (arXiv 1810.04805; google-research/bert).

Of a sequence of n tokens, specials counted, k = min(max_targets, max(1, round(share * n))) places
are chosen, never a special one; each becomes [MASK] with 0.8, a token drawn uniformly from the
whole vocabulary with 0.1, and stays with 0.1. The k chosen places are those with the smallest
draws, so the count is exact.

    k = round(0.15 * 12) = 2; "man" is masked, "." becomes a random token
    [CLS] the man    went to a store .     [SEP] he left [SEP]
    [CLS] the [MASK] went to a store store [SEP] he left [SEP]    targets: 2 -> man, 7 -> .
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import pydantic
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

Probability = Annotated[float, pydantic.Field(ge=0.0, le=1.0)]


@config
class MaskedConfig(Scheme):
    """BERT's masking. ``max_targets`` bounds the targets of a sequence (20 at 128, 80 at 512)."""

    kind: Literal["masked"] = "masked"
    share: Annotated[float, pydantic.Field(gt=0.0, lt=1.0)] = 0.15
    max_targets: Annotated[int, pydantic.Field(ge=1)] | None = None
    mask_probability: Probability = 0.8
    random_probability: Probability = 0.1

    def __post_init__(self) -> None:
        if self.mask_probability + self.random_probability > 1:
            raise ValueError("mask_probability + random_probability must not exceed 1")

    def num_targets(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Targets of sequences of the given lengths ``[sequences]`` with enough plain tokens.

        Rounds half to even, as the reference's ``round`` does.
        """
        counts: NDArray[np.int64] = np.maximum(1, np.rint(lengths * self.share)).astype(np.int64)
        return counts if self.max_targets is None else np.minimum(counts, self.max_targets)

    def bounds(self, context: Context, lengths: NDArray[np.int64]) -> Bounds:
        """As long as before, with exactly so many targets."""
        return Bounds(lengths, {"masked_lm": self.num_targets(lengths)})

    def corrupt(
        self, context: Context, sequences: Sequences, *, seed: int, epoch: int
    ) -> Corrupted:
        """Mask tokens; they keep their places."""
        from preprocessing.kernels.masked import mask_tokens

        special = context.special
        counts = self.num_targets(sequences.lengths)
        tokens, places = sequences.tokens.copy(), np.empty(counts.sum(), dtype=np.int64)
        found = mask_tokens(
            tokens,
            sequences.offsets,
            sequences.keys(seed, "masked", epoch),
            counts,
            np.array([special.start, special.separator, special.pad]),
            special.mask,
            special.size,
            self.mask_probability,
            self.random_probability,
            places,
        )
        places = places[:found]
        targets = Targets(places, sequences.tokens[places])
        return Corrupted(replace(sequences, tokens=tokens), {"masked_lm": targets})
