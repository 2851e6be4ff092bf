"""What the schemes share that hide some tokens and ask for them at their own places."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

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
    SpecialIds,
    Targets,
)

Probability = Annotated[float, pydantic.Field(ge=0.0, le=1.0)]


def reserved(special: SpecialIds) -> NDArray[np.int64]:
    """Ids that are never chosen, ``[4]``."""
    return np.array([special.start, special.separator, special.pad, special.end])


@config
class Choosing(Scheme):
    """Chooses a share of the tokens; ``max_targets`` bounds those of a sequence (20 at 128)."""

    share: Annotated[float, pydantic.Field(gt=0.0, lt=1.0)] = 0.15
    max_targets: Annotated[int, pydantic.Field(ge=1)] | None = None

    def keeps_segments(self) -> bool:
        """Tokens keep their places."""
        return True

    def num_targets(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Targets of sequences of the given lengths ``[sequences]`` with enough plain tokens.

        Rounds half to even, as the ``round`` of BERT's reference does.
        """
        counts: NDArray[np.int64] = np.maximum(1, np.rint(lengths * self.share)).astype(np.int64)
        return counts if self.max_targets is None else np.minimum(counts, self.max_targets)

    def bounds(self, context: Context, lengths: NDArray[np.int64]) -> Bounds:
        """As long as before, with at most so many targets."""
        return Bounds(lengths, {"masked_lm": self.num_targets(lengths)})


@config
class Masking(Choosing):
    """Of the chosen tokens most become [MASK], some a random token, and the rest stays."""

    mask_probability: Probability = 0.8
    random_probability: Probability = 0.1

    def __post_init__(self) -> None:
        if self.mask_probability + self.random_probability > 1:
            raise ValueError("mask_probability + random_probability must not exceed 1")

    def check(self, context: Context, length: int) -> None:
        """It needs [MASK]."""
        context.special.require("a corruption that masks", "mask")

    def mask(
        self,
        context: Context,
        sequences: Sequences,
        keys: NDArray[np.uint64],
        chosen: NDArray[np.uint8],
    ) -> Corrupted:
        """Hide the tokens that are chosen, where ``chosen`` ``[tokens]`` is not 0.

        The fate of each is its own; random tokens come from the whole vocabulary.
        """
        from preprocessing.kernels.words import mask_places

        tokens, places = sequences.tokens.copy(), np.flatnonzero(chosen)
        mask_places(
            tokens,
            places,
            sequences.offsets,
            keys,
            context.special.mask,
            context.special.size,
            self.mask_probability,
            self.random_probability,
        )
        targets = Targets(places, sequences.tokens[places])
        return Corrupted(replace(sequences, tokens=tokens), {"masked_lm": targets})
