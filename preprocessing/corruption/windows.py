"""The masked words of DeBERTa (arXiv 2006.03654; microsoft/DeBERTa, ``NGramMaskGenerator``).

From left to right the words of a sequence are dealt to windows of 6n, 6 = floor(1 / share), where
n <= 3 is drawn for each with p(n) ~ 1/n. In each window n adjacent words are chosen, wherever a
uniform draw lets them begin; where they reach beyond the window, the next one begins behind them.
Of the runs so found the first ones are kept, until k tokens (as in :mod:`.masked`) are chosen; a
word that would be more than that is passed over. Each token then becomes [MASK] with 0.8, a token
of the whole vocabulary with 0.1, and stays with 0.1, by itself.

    k = round(0.15 * 14) = 2; a run of two words in a window of twelve, which is all there are
    [CLS] un  ##aff  ##able  man  [SEP] he  walk  ##ed  to    a    store .      [SEP]
    marks  1    0      0      1    0    1    1      0    1    1      1   1       0
    [CLS] un  ##aff  ##able  man  [SEP] he  walk  ##ed  to [MASK] [MASK] .      [SEP]
                                                     targets: 10 -> a, 11 -> store

One word in six is more than 15 %, so that of 512 words of one token the first nine tenths have
16.6 % chosen and the last one 1 to 2 %; where words have more tokens the edge is less sharp.
``shuffle`` keeps any of the runs instead, and masks evenly.

Deviations: the reference goes on to the end of the word with which it reaches k, so that nothing
bounds the targets; tokens that are unknown may be chosen.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import pydantic

from configs.schema import config
from preprocessing.corruption.base import Context, Corrupted, Sequences
from preprocessing.corruption.masking import Masking, reserved
from preprocessing.corruption.ngrams import Weights, run_weights
from preprocessing.marks import WORD


@config
class WindowsConfig(Masking):
    """A run of up to ``max_n`` words in each window of 1 / ``share`` times as many.

    Attributes:
        weights: of runs of 1, 2, ... words (1, 1/2, 1/3, ...).
        shuffle: keep any of the runs, not the first ones.
    """

    kind: Literal["windows"]
    max_n: Annotated[int, pydantic.Field(ge=1)] = 3
    weights: Weights | None = None
    shuffle: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        run_weights(self.max_n, self.weights)

    def marks(self) -> int:
        """Where words begin."""
        return WORD

    def corrupt(
        self, context: Context, sequences: Sequences, *, seed: int, epoch: int
    ) -> Corrupted:
        """Mask runs of words; tokens keep their places."""
        from preprocessing.kernels.windows import choose_in_windows

        keys = sequences.keys(seed, self.kind, epoch)
        chosen = np.zeros(len(sequences.tokens), dtype=np.uint8)
        choose_in_windows(
            sequences.tokens,
            sequences.marks,
            sequences.offsets,
            sequences.first_lengths,
            keys,
            self.num_targets(sequences.lengths),
            int(1 / self.share),
            run_weights(self.max_n, self.weights),
            self.shuffle,
            reserved(context.special),
            chosen,
        )
        return self.mask(context, sequences, keys, chosen)
