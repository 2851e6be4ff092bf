"""Whole word masking, as BERT's later checkpoints have it (google-research/bert, May 2019).

As many tokens as BERT chooses (:mod:`.masked`), but word by word: words in random order, where one
that would be more than what is left to choose is passed over. Each *token* of a chosen word then
becomes [MASK] with 0.8, a token of the whole vocabulary with 0.1, and stays with 0.1, by itself.

    k = round(0.15 * 14) = 2
    [CLS] un  ##aff  ##able  man  [SEP] he  walk   ##ed   to a store .      [SEP]
    marks  1    0      0      1    0    1    1       0     1 1   1   1       0
    [CLS] un  ##aff  ##able  man  [SEP] he [MASK] [MASK]  to a store .      [SEP]
                                                        targets: 7 -> walk, 8 -> ##ed

Words are told by the marks of the tokens, not by ``##``, and end with their segment: in the
reference a ``##`` that a cut left behind [SEP] belongs to the last word before it. A sequence none
of whose words fits has no target, as there.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from configs.schema import config
from preprocessing.corruption.base import Context, Corrupted, Sequences
from preprocessing.corruption.masking import Masking
from preprocessing.corruption.ngrams import choose_runs
from preprocessing.marks import WORD


@config
class WholeWordConfig(Masking):
    """Whole words instead of tokens."""

    kind: Literal["whole_word"]

    def marks(self) -> int:
        """Where words begin."""
        return WORD

    def corrupt(
        self, context: Context, sequences: Sequences, *, seed: int, epoch: int
    ) -> Corrupted:
        """Mask words; tokens keep their places."""
        keys = sequences.keys(seed, self.kind, epoch)
        counts = self.num_targets(sequences.lengths)
        chosen = choose_runs(context, sequences, keys, counts, np.ones(1))
        return self.mask(context, sequences, keys, chosen)
