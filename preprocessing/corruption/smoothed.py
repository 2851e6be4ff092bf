"""Masks on rare tokens, as DistilBERT is distilled (arXiv 1910.01108; its reference code).

Of a sequence of n tokens, specials counted, ceil(0.15 * n) are chosen, never a special one, one
after the other with a probability ~ count^-0.7, where count is how often the id occurs in the
training tokens (at least 1), as Lample and Conneau (arXiv 1901.07291) do. Each becomes [MASK] with
0.8, a token of the whole vocabulary with 0.1, and stays with 0.1.

    ceil(0.15 * 14) = 3
    [CLS]       un  ##aff  ##able  man  [SEP]  he  walk  ##ed   to    a store   .  [SEP]
    frequencies 35    15     40    300       1800    50   900 2700 2500    60 5000
    [CLS]       un [MASK] [MASK]   man  [SEP]  he [MASK] ##ed   to    a store   .  [SEP]
                                       targets: 2 -> ##aff, 3 -> ##able, 7 -> walk

Deviation: the reference chooses ceil(0.15 * all tokens) of a whole batch, so that what becomes of a
sequence depends on its company. Here each has its own share: the same in any batch, row or copy.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import pydantic
from numpy.typing import NDArray

from configs.schema import config
from preprocessing.corruption.base import Context, Corrupted, Sequences
from preprocessing.corruption.masking import Masking, reserved
from preprocessing.tables.base import Table
from preprocessing.tables.frequencies import FrequenciesTable


@config
class SmoothedConfig(Masking):
    """Tokens chosen by their counts to the power of ``-smoothing``."""

    kind: Literal["smoothed"]
    smoothing: Annotated[float, pydantic.Field(ge=0.0)] = 0.7

    def tables(self) -> tuple[Table, ...]:
        """How often each id occurs."""
        return (FrequenciesTable(),)

    def num_targets(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Targets of sequences of the given lengths ``[sequences]`` with enough plain tokens."""
        counts: NDArray[np.int64] = np.ceil(lengths * self.share).astype(np.int64)
        return counts if self.max_targets is None else np.minimum(counts, self.max_targets)

    def corrupt(
        self, context: Context, sequences: Sequences, *, seed: int, epoch: int
    ) -> Corrupted:
        """Mask rare tokens more often; all keep their places."""
        from preprocessing.kernels.smoothed import choose_weighted

        keys = sequences.keys(seed, self.kind, epoch)
        chosen = np.zeros(len(sequences.tokens), dtype=np.uint8)
        choose_weighted(
            sequences.tokens,
            sequences.offsets,
            keys,
            self.num_targets(sequences.lengths),
            self._weights(context),
            chosen,
        )
        return self.mask(context, sequences, keys, chosen)

    def _weights(self, context: Context) -> NDArray[np.float64]:
        counts = np.maximum(context.tables["frequencies"], 1).astype(np.float64)
        weights: NDArray[np.float64] = counts**-self.smoothing
        special = reserved(context.special)
        weights[special[special >= 0]] = 0.0
        return weights
