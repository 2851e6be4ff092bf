"""Picks for a generator and a discriminator (ELECTRA, arXiv 2003.10555; DeBERTa-v3, 2111.09543).

Of a sequence of n tokens, specials counted, k = min(max_targets, max(1, round(share * n))) are
picked, never a special one. The generator predicts them, and the discriminator says of *every*
token whether it is still the original one, once the generator's samples stand at the picks.

``picks`` says how (google-research/electra, ``pretrain_helpers.py``; microsoft/DeBERTa):
    with_replacement     ELECTRA: k draws, in which a place may come up twice: 19 draws of 128
                         tokens are about 17.7 places, 77 of 512 about 71.5
    without_replacement  k places
    windows              DeBERTa-v3: one token in each window of floor(1 / share), the first k
``mask_share`` of them (ELECTRA 0.85, DeBERTa-v3 1.0) become [MASK] for the generator, and the rest
stay as they are; there are no random tokens.

    k = round(0.15 * 14) = 2, of which one is masked
    [CLS] un  ##aff   ##able  man  [SEP]  he  walk  ##ed  to  a  store  .  [SEP]
    [CLS] un  [MASK]  ##able  man  [SEP]  he  walk  ##ed  to  a  store  .  [SEP]
    masked_lm: 2 -> ##aff, 11 -> store        replaced_tokens: 0 -> 0, 1 -> 0, ..., 13 -> 0

``uniform`` is one number in [0, 1) for each pick: the sample is the first id at which the sums of
the generator's probabilities exceed it, so that it is the same on any number of devices. A place
that is picked twice is two targets of the generator, as in the reference, with one fate and one
number. The labels of ``replaced_tokens`` are 0: the model knows what was replaced.

Deviation: where a place is picked twice, the reference takes two samples of it and the mean of
their ids.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from configs.schema import config
from preprocessing.corruption.base import Bounds, Context, Corrupted, Sequences, Targets
from preprocessing.corruption.masking import Choosing, Probability, reserved
from preprocessing.draws import bits, integers, uniform
from preprocessing.marks import WORD

_PICK, _FATE, _SAMPLE = 0, 1, 2  # what the draws of a place, or of a turn, are taken for


@config
class ReplacedConfig(Choosing):
    """Tokens that a generator replaces, and a discriminator finds."""

    kind: Literal["replaced"]
    picks: Literal["with_replacement", "without_replacement", "windows"] = "with_replacement"
    mask_share: Probability = 0.85

    def check(self, context: Context, length: int) -> None:
        """It needs [MASK], unless nothing is masked."""
        if self.mask_share:
            context.special.require(f"corruption '{self.kind}'", "mask")

    def bounds(self, context: Context, lengths: NDArray[np.int64]) -> Bounds:
        """As long as before; all tokens are asked for by the discriminator."""
        return Bounds(lengths, {"masked_lm": self.num_targets(lengths), "replaced_tokens": lengths})

    def corrupt(
        self, context: Context, sequences: Sequences, *, seed: int, epoch: int
    ) -> Corrupted:
        """The generator's inputs; tokens keep their places."""
        keys = sequences.keys(seed, self.kind, epoch)
        places = self._pick(context, sequences, keys)
        owners = np.searchsorted(sequences.offsets, places, side="right") - 1
        within = places - sequences.offsets[owners]
        tokens = sequences.tokens.copy()
        tokens[places[uniform(keys[owners], within, _FATE) < self.mask_share]] = (
            context.special.mask
        )
        # As many bits as a float32 holds, so that none is rounded up to 1.
        samples = (bits(keys[owners], within, _SAMPLE) >> np.uint64(40)).astype(np.float32)
        everywhere = np.arange(len(tokens))
        return Corrupted(
            replace(sequences, tokens=tokens),
            {
                "masked_lm": Targets(
                    places, sequences.tokens[places], {"uniform": samples * np.float32(2**-24)}
                ),
                "replaced_tokens": Targets(everywhere, np.zeros_like(everywhere)),
            },
        )

    def _pick(
        self, context: Context, sequences: Sequences, keys: NDArray[np.uint64]
    ) -> NDArray[np.int64]:
        """The picked places, ascending."""
        counts, special = self.num_targets(sequences.lengths), reserved(context.special)
        if self.picks == "with_replacement":
            return _with_replacement(sequences, keys, counts, special)
        chosen = np.zeros(len(sequences.tokens), dtype=np.uint8)
        if self.picks == "without_replacement":
            from preprocessing.kernels.smoothed import choose_weighted

            weights = np.ones(context.special.size)
            weights[special[special >= 0]] = 0.0
            choose_weighted(sequences.tokens, sequences.offsets, keys, counts, weights, chosen)
        else:
            from preprocessing.kernels.windows import choose_in_windows

            choose_in_windows(
                sequences.tokens,
                np.full(len(sequences.tokens), WORD, dtype=np.uint8),
                sequences.offsets,
                sequences.first_lengths,
                keys,
                counts,
                int(1 / self.share),
                np.ones(1),
                False,
                special,
                chosen,
            )
        return np.flatnonzero(chosen)


def _with_replacement(
    sequences: Sequences,
    keys: NDArray[np.uint64],
    counts: NDArray[np.int64],
    special: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Draw as many places of each sequence as said, as if none were drawn before; ascending."""
    plain = np.flatnonzero(~np.isin(sequences.tokens, special))
    ends = np.searchsorted(plain, sequences.offsets)
    counts = counts * (np.diff(ends) > 0)
    owners = np.repeat(np.arange(len(counts)), counts)
    turns = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    drawn = integers(keys[owners], turns, _PICK, np.diff(ends)[owners])
    return np.sort(plain[ends[owners] + drawn])
