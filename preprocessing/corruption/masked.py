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

from typing import Annotated, Literal

import numpy as np
import pydantic
from numpy.typing import NDArray

from configs.schema import config
from preprocessing.corruption.base import Corrupted, Sequences, SpecialIds
from preprocessing.draws import integers, uniform

Probability = Annotated[float, pydantic.Field(ge=0.0, le=1.0)]

_CHOOSE, _FATE, _RANDOM_TOKEN = 0, 1, 2  # what the draws of a place are taken for
_NEVER = 2.0  # above every uniform draw


@config
class MaskedConfig:
    """BERT's masking. ``max_targets`` bounds the targets of a sequence (20 at 128, 80 at 512)."""

    kind: Literal["masked"] = "masked"
    share: Annotated[float, pydantic.Field(gt=0.0, lt=1.0)] = 0.15
    max_targets: Annotated[int, pydantic.Field(ge=1)] | None = None
    mask_probability: Probability = 0.8
    random_probability: Probability = 0.1

    def __post_init__(self) -> None:
        if self.mask_probability + self.random_probability > 1:
            raise ValueError("mask_probability + random_probability must not exceed 1")


def num_targets(config: MaskedConfig, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Targets of sequences of the given lengths ``[sequences]``, where enough tokens are plain.

    Rounds half to even, as the reference's ``round`` does.
    """
    counts: NDArray[np.int64] = np.maximum(1, np.rint(lengths * config.share)).astype(np.int64)
    return counts if config.max_targets is None else np.minimum(counts, config.max_targets)


def mask_tokens(
    config: MaskedConfig, special: SpecialIds, sequences: Sequences, *, seed: int, epoch: int
) -> Corrupted:
    """Corrupt sequences; a pure function of their tokens and ids, the seed and the epoch."""
    keys = sequences.keys(seed, "masked", epoch)
    width = int(sequences.lengths.max(initial=0))
    inside = np.arange(width) < sequences.lengths[:, None]
    places = np.where(inside, sequences.starts[:, None] + np.arange(width), 0)
    originals = sequences.tokens[places]
    plain = inside & ~np.isin(originals, (special.start, special.separator, special.pad))

    draws = np.where(plain, uniform(keys[:, None], np.arange(width), _CHOOSE), _NEVER)
    counts = np.minimum(num_targets(config, sequences.lengths), plain.sum(axis=1))
    most = int(counts.max(initial=0))
    smallest = np.argpartition(draws, min(most, width - 1), axis=1)[:, :most] if most else None
    if smallest is None:
        nothing = np.zeros(0, dtype=np.int64)
        return Corrupted(sequences.tokens, nothing, nothing)
    by_draw = np.argsort(np.take_along_axis(draws, smallest, axis=1), axis=1)
    ranked = np.take_along_axis(smallest, by_draw, axis=1)
    rows, ranks = np.nonzero(np.arange(most) < counts[:, None])
    columns = ranked[rows, ranks]

    target_places = places[rows, columns]
    ascending = np.argsort(target_places)
    rows, columns, target_places = rows[ascending], columns[ascending], target_places[ascending]
    target_ids = sequences.tokens[target_places]

    own_keys = keys[rows]
    fate = uniform(own_keys, columns, _FATE)
    random_ids = integers(own_keys, columns, _RANDOM_TOKEN, special.size)
    replaced = fate < config.mask_probability + config.random_probability
    tokens = sequences.tokens.copy()
    tokens[target_places] = np.where(
        fate < config.mask_probability,
        special.mask,
        np.where(replaced, random_ids, target_ids),
    )
    return Corrupted(tokens, target_places, target_ids)
