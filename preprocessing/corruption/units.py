"""Whole units as ERNIE 1.0 has them (arXiv 1904.09223; PaddlePaddle/ERNIE release/r2.0).

The units of a sequence are its single tokens (``tokens``: the characters of Chinese text), its
words, or the phrases or entities of a lexicon and the words between them. Every token has a draw.
A unit is chosen if that of its first token is at most ``share``, and all its tokens are to be
predicted; each by itself becomes [MASK] with 0.8, a random id from 1 on with 0.1, and stays with
0.1. What decides is its draw again, that of a first token as a part of ``share``: small ones stay,
large ones are masked.

    entities: New York is one, with draws 0.02 and 0.92; 0.02 is chosen, and 0.02 / 0.15 is random
    [CLS] he lives in New    York   now [SEP]
    [CLS] he lives in street [MASK] now [SEP]    targets: 4 -> New, 5 -> York

So many tokens are chosen as chance has it, and of a short sequence often none. A sequence has room
for 6 standard deviations more than the mean of tokens chosen one by one; where more are chosen, the
units with the largest draws are left out until the rest fits.

Several levels with weights give each sequence one of them by a draw, as the reference does with
characters and words.

Deviations: that room (the reference pads to whatever a batch comes to); a unit ends with its
segment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal, TypeAlias, get_args

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
from preprocessing.corruption.masking import Probability, reserved
from preprocessing.draws import uniform
from preprocessing.marks import ENTITY, IN_ENTITY, IN_PHRASE, PHRASE, WORD

Weight = Annotated[float, pydantic.Field(gt=0.0)]
Level: TypeAlias = Literal["tokens", "words", "phrases", "entities"]

LEVELS: tuple[Level, ...] = get_args(Level)
_MARKS: Mapping[Level, int] = {
    "tokens": 0,
    "words": WORD,
    "phrases": WORD | PHRASE | IN_PHRASE,
    "entities": WORD | ENTITY | IN_ENTITY,
}
_LEVEL = 2  # a sequence's draw
_ROOM = 6.0  # standard deviations


@config
class UnitsConfig(Scheme):
    """ERNIE's units: ``level`` is one of ``tokens words phrases entities``, or weights of them."""

    kind: Literal["units"]
    level: Level | Annotated[Mapping[Level, Weight], pydantic.Field(min_length=1)]
    share: Annotated[float, pydantic.Field(gt=0.0, lt=1.0)] = 0.15
    mask_probability: Probability = 0.8
    random_probability: Probability = 0.1

    def __post_init__(self) -> None:
        if self.mask_probability + self.random_probability > 1:
            raise ValueError("mask_probability + random_probability must not exceed 1")

    @property
    def weights(self) -> dict[Level, float]:
        """The level of a sequence is drawn by them."""
        given = {self.level: 1.0} if isinstance(self.level, str) else self.level
        return {level: given[level] for level in LEVELS if level in given}

    def check(self, context: Context, length: int) -> None:
        """It needs [MASK]."""
        context.special.require(f"corruption '{self.kind}'", "mask")

    def marks(self) -> int:
        """Where the units of all its levels begin and go on."""
        wanted = 0
        for level in self.weights:
            wanted |= _MARKS[level]
        return wanted

    def keeps_segments(self) -> bool:
        """Tokens keep their places."""
        return True

    def levels(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The level of each sequence, as a place in ``LEVELS``, ``[sequences]``."""
        weights = self.weights
        sums = np.cumsum(list(weights.values()))
        drawn = np.searchsorted(sums[:-1], uniform(keys, 0, _LEVEL) * sums[-1], side="right")
        places = np.array([LEVELS.index(level) for level in weights], dtype=np.int64)
        return np.asarray(places[drawn])

    def num_targets(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """At most so many targets have sequences of the given lengths ``[sequences]``."""
        deviations = np.sqrt(lengths * self.share * (1 - self.share))
        room = np.ceil(lengths * self.share + _ROOM * deviations).astype(np.int64)
        return np.asarray(np.minimum(lengths, room))

    def bounds(self, context: Context, lengths: NDArray[np.int64]) -> Bounds:
        """As long as before, and hardly ever so many targets."""
        return Bounds(lengths, {"masked_lm": self.num_targets(lengths)})

    def corrupt(
        self, context: Context, sequences: Sequences, *, seed: int, epoch: int
    ) -> Corrupted:
        """Mask units; tokens keep their places."""
        from preprocessing.kernels.units import mask_units

        special = context.special
        keys = sequences.keys(seed, "units", epoch)
        most = self.num_targets(sequences.lengths)
        tokens, places = sequences.tokens.copy(), np.empty(most.sum(), dtype=np.int64)
        kept = 1 - self.mask_probability - self.random_probability
        found = mask_units(
            tokens,
            sequences.tokens,
            sequences.marks,
            sequences.offsets,
            sequences.first_lengths,
            keys,
            self.levels(keys),
            most,
            reserved(special),
            special.mask,
            special.size,
            self.share,
            kept,
            kept + self.random_probability,
            places,
        )
        places = places[:found]
        targets = Targets(places, sequences.tokens[places])
        return Corrupted(replace(sequences, tokens=tokens), {"masked_lm": targets})
