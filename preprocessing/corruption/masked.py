"""Masked tokens as BERT has them (arXiv 1810.04805; google-research/bert).

Of a sequence of n tokens, specials counted, k = min(max_targets, max(1, round(share * n))) places
are chosen, never a special one; each becomes [MASK] with 0.8, a token drawn uniformly from the
whole vocabulary with 0.1, and stays with 0.1. The k chosen places are those with the smallest
draws, so the count is exact.

RoBERTa's (arXiv 1907.11692; fairseq, ``mask_tokens_dataset.py``) differs where it is asked to:
``rounding: stochastic`` chooses floor(share * n + u) places, u uniform in [0, 1) for each sequence
(19.2 of 128 on average), and at least one; ``random_specials: false`` draws no special token.

    k = round(0.15 * 12) = 2; "man" is masked, "." becomes a random token
    [CLS] the man    went to a store .     [SEP] he left [SEP]
    [CLS] the [MASK] went to a store store [SEP] he left [SEP]    targets: 2 -> man, 7 -> .
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from configs.schema import config, setting
from preprocessing.corruption.base import Context, Corrupted, Sequences, Targets
from preprocessing.corruption.masking import Masking, reserved
from preprocessing.draws import uniform

_ROUNDING = 3  # a sequence's draw; those of its places are the kernel's


@config
class MaskedConfig(Masking):
    """BERT's masking. ``max_targets`` bounds the targets of a sequence (20 at 128, 80 at 512).

    Attributes:
        rounding: of the number of targets; ``stochastic`` is RoBERTa's.
        random_specials: whether random tokens may be special ones; not so in RoBERTa.
    """

    kind: Literal["masked"] = "masked"
    rounding: Literal["nearest", "stochastic"] = setting(default="nearest", added=True)
    random_specials: bool = setting(default=True, added=True)

    def num_targets(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Targets of sequences of the given lengths ``[sequences]``, at most."""
        if self.rounding == "nearest":
            return super().num_targets(lengths)
        counts: NDArray[np.int64] = np.maximum(1, np.ceil(lengths * self.share)).astype(np.int64)
        return counts if self.max_targets is None else np.minimum(counts, self.max_targets)

    def corrupt(
        self, context: Context, sequences: Sequences, *, seed: int, epoch: int
    ) -> Corrupted:
        """Mask tokens; they keep their places."""
        from preprocessing.kernels.masked import mask_tokens

        keys = sequences.keys(seed, "masked", epoch)
        counts = self._drawn_counts(sequences.lengths, keys)
        never_drawn = np.zeros(0, dtype=np.int64)
        if not self.random_specials:
            known = np.append(reserved(context.special), context.special.mask)
            never_drawn = np.unique(known[known >= 0])
        tokens, places = sequences.tokens.copy(), np.empty(counts.sum(), dtype=np.int64)
        found = mask_tokens(
            tokens,
            sequences.offsets,
            keys,
            counts,
            reserved(context.special),
            context.special.mask,
            context.special.size,
            never_drawn,
            self.mask_probability,
            self.random_probability,
            places,
        )
        places = places[:found]
        targets = Targets(places, sequences.tokens[places])
        return Corrupted(replace(sequences, tokens=tokens), {"masked_lm": targets})

    def _drawn_counts(
        self, lengths: NDArray[np.int64], keys: NDArray[np.uint64]
    ) -> NDArray[np.int64]:
        """Targets of sequences with enough plain tokens, ``[sequences]``."""
        most = self.num_targets(lengths)
        if self.rounding == "nearest":
            return most
        drawn = np.floor(lengths * self.share + uniform(keys, 0, _ROUNDING)).astype(np.int64)
        return np.minimum(np.maximum(1, drawn), most)
