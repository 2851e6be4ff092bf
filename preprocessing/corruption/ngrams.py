"""Runs of n words, as ALBERT has them (arXiv 1909.11942; google-research/albert).

As many tokens as BERT chooses (:mod:`.masked`). Words take their turns in random order; the one
whose turn it is begins a run of n words, n <= 3 drawn with p(n) ~ 1/n: 6/11, 3/11, 2/11. A run of
more tokens than are left to choose is shortened word by word, and passed over if even its first
word is too long; so is one that overlaps what is chosen. Each *token* then becomes [MASK] with 0.8,
a token of the whole vocabulary with 0.1, and stays with 0.1, by itself, not run by run.

    share 0.3: k = round(0.3 * 14) = 4; one run of three words, of which "he" stays
    [CLS] un  ##aff  ##able  man  [SEP] he  walk   ##ed     to   a store .      [SEP]
    marks  1    0      0      1    0    1    1       0       1   1   1   1       0
    [CLS] un  ##aff  ##able  man  [SEP] he [MASK] [MASK] [MASK]  a store .      [SEP]
                                      targets: 6 -> he, 7 -> walk, 8 -> ##ed, 9 -> to

Deviations: a run ends with its segment, where the reference takes the word behind [SEP] for the
next one; ``max_targets`` is free, where the code's default is 20 even for 512 tokens.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import pydantic
from numpy.typing import NDArray

from configs.schema import config
from preprocessing.corruption.base import Context, Corrupted, Sequences
from preprocessing.corruption.masking import Masking, reserved
from preprocessing.marks import WORD

Weights = Annotated[
    tuple[Annotated[float, pydantic.Field(ge=0.0)], ...], pydantic.Field(min_length=1)
]


def run_weights(max_n: int, weights: Weights | None) -> NDArray[np.float64]:
    """Sums of the weights of 1, 2, ... words, ``[max_n]``; by default of 1, 1/2, 1/3, ...

    Raises:
        ValueError: they are not as many as there are lengths, or no run has any.
    """
    if weights is None:
        return np.cumsum(1 / np.arange(1, max_n + 1))
    if len(weights) != max_n:
        raise ValueError(f"weights has {len(weights)} numbers; give max_n = {max_n} of them")
    if weights[0] == 0:
        raise ValueError("weights[0] must not be 0: where a text ends only one word may be left")
    return np.cumsum(weights)


@config
class NgramsConfig(Masking):
    """Runs of up to ``max_n`` words, by the weights of 1, 2, ... words (1, 1/2, 1/3, ...)."""

    kind: Literal["ngrams"]
    max_n: Annotated[int, pydantic.Field(ge=1)] = 3
    weights: Weights | None = None

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
        keys = sequences.keys(seed, self.kind, epoch)
        counts = self.num_targets(sequences.lengths)
        chosen = choose_runs(
            context, sequences, keys, counts, run_weights(self.max_n, self.weights)
        )
        return self.mask(context, sequences, keys, chosen)


def choose_runs(
    context: Context,
    sequences: Sequences,
    keys: NDArray[np.uint64],
    counts: NDArray[np.int64],
    weights: NDArray[np.float64],
    *,
    share: float = 1.0,
) -> NDArray[np.uint8]:
    """Choose runs of words until enough tokens are chosen.

    Args:
        counts: tokens to choose at most, ``[sequences]``.
        weights: sums of the weights of runs of 1, 2, ... words (:func:`run_weights`).
        share: of the words to choose at most.

    Returns:
        ``[tokens]``, not 0 where a token is chosen.
    """
    from preprocessing.kernels.ngrams import choose_ngrams

    chosen = np.zeros(len(sequences.tokens), dtype=np.uint8)
    choose_ngrams(
        sequences.tokens,
        sequences.marks,
        sequences.offsets,
        sequences.first_lengths,
        keys,
        counts,
        share,
        weights,
        reserved(context.special),
        chosen,
    )
    return chosen
