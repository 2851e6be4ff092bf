"""Masked tokens under four attention masks (UniLM v1, arXiv 1905.03197; microsoft/unilm).

k tokens are masked as in :mod:`preprocessing.corruption.masked` and predicted at their own places.
Plain places are visited in the order of their draws: a place masks itself with 0.8, a bigram or a
trigram that begins there with 0.1 each; an n-gram ends before a special token, and the last one is
trimmed so that the count is exact. Who sees a token follows from the mode (:mod:`.prefix`):

    mode           [CLS] a b [SEP] c d [SEP]      segment_ids      seen_by            label
    bidirectional                                 0 0 0 0 1 1 1    ALL                kept
    sequence                                      4 4 4 4 5 5 5    ALL, from c LATER  none
    left_to_right                                 2 2 2 2 2 2 2    LATER              none
    right_to_left                                 3 3 3 3 3 3 3    EARLIER            none

So with S tokens up to the first separator and T behind it, ``sequence`` leaves
S (S + T) + T (T + 1) / 2 pairs. The paper draws the mode for whole batches, with 1/3, 1/3, 1/6 and
1/6; here a recipe names one examples set a mode, and tasks with these weights.

    mode sequence, k = round(0.15 * 12) = 2; the bigram "a store" is masked, "store" by itself
    [CLS] the man went to a      store . [SEP] he left [SEP]
    [CLS] the man went to [MASK] store . [SEP] he left [SEP]    targets: 5 -> a, 6 -> store

Deviations: the code for pretraining was not released. In that for fine-tuning k counts no specials
and surplus places of n-grams are taken back at random, not from the last one. Segment ids of
``bidirectional`` and ``right_to_left`` are not published; these are the numbers that are left.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from configs.schema import config
from preprocessing.corruption.base import UNLABELLED, Context, Corrupted, Sequences
from preprocessing.corruption.masking import Masking, Probability, reserved
from preprocessing.corruption.prefix import ALL, EARLIER, LATER

Mode = Literal["bidirectional", "sequence", "left_to_right", "right_to_left"]
_SEGMENTS: dict[Mode, tuple[int, int]] = {
    "bidirectional": (0, 1),
    "sequence": (4, 5),
    "left_to_right": (2, 2),
    "right_to_left": (3, 3),
}
_SEEN_BY: dict[Mode, tuple[int, int]] = {
    "bidirectional": (ALL, ALL),
    "sequence": (ALL, LATER),
    "left_to_right": (LATER, LATER),
    "right_to_left": (EARLIER, EARLIER),
}


@config
class UnilmConfig(Masking):
    """UniLM's masking under one of its four attention masks.

    ``ngram_probability``: of a bigram or a trigram, equally likely, where a token is to be masked.
    """

    kind: Literal["unilm"]
    mode: Mode
    ngram_probability: Probability = 0.2

    def attention(self) -> str | None:
        """The mask of the mode."""
        return None if self.mode == "bidirectional" else "seen_by"

    def keeps_segments(self) -> bool:
        """Segments say which mode it is."""
        return False

    def num_segments(self) -> int:
        """The two of the mode."""
        return max(_SEGMENTS[self.mode]) + 1

    def corrupt(
        self, context: Context, sequences: Sequences, *, seed: int, epoch: int
    ) -> Corrupted:
        """Mask tokens, and tell who sees which."""
        from preprocessing.kernels.unilm import choose_ngrams

        lengths, keys = sequences.lengths, sequences.keys(seed, "unilm", epoch)
        chosen = np.zeros(len(sequences.tokens), dtype=np.uint8)
        choose_ngrams(
            sequences.tokens,
            sequences.offsets,
            keys,
            self.num_targets(lengths),
            reserved(context.special),
            self.ngram_probability,
            chosen,
        )
        within = np.arange(len(chosen)) - np.repeat(sequences.offsets[:-1], lengths)
        second = (within >= np.repeat(sequences.first_lengths, lengths)).astype(np.int64)
        masked = self.mask(context, sequences, keys, chosen)
        inputs = masked.inputs
        if self.mode != "bidirectional":
            inputs = replace(inputs, labels=np.full_like(inputs.labels, UNLABELLED))
        return replace(
            masked,
            inputs=inputs,
            channels={
                "segment_ids": np.array(_SEGMENTS[self.mode])[second],
                "seen_by": np.array(_SEEN_BY[self.mode])[second],
            },
        )
