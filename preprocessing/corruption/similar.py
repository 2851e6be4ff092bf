"""Similar words in the place of words, as MacBERT has them (arXiv 2004.13922): nothing is masked.

15 % of a sequence's words are chosen (rounded, but at least one) in runs of one to four words,
40, 30, 20 and 10 %; runs take their places as those of :mod:`.ngrams`. Each *word* of a run then
becomes a similar word of as many pieces with 0.8, random tokens of the whole vocabulary with 0.1,
and stays with 0.1. A word that has no similar one becomes random tokens instead. Where it has
several, one of them is drawn.

    share 0.3: round(0.3 * 8) = 2 words; walk ##ed -> stroll ##ed, and nothing is similar to "to"
    [CLS] un  ##aff  ##able  man  [SEP] he   walk  ##ed   to  a  store  .  [SEP]
    marks  1    0      0      1    0    1     1      0     1  1    1    1   0
    [CLS] un  ##aff  ##able  man  [SEP] he  stroll ##ed  shop a  store  .  [SEP]
                                      targets: 7 -> walk, 8 -> ##ed, 9 -> to

A share of words is no share of tokens: to bound the targets, at most 1.5 times as many tokens are
chosen as the share says, and ``max_targets``; a run that would be more is shortened or passed over.
The paper takes its similar words from word2vec (the toolkit Synonyms) and does not say what to do
with those of other lengths; here they are given by a file, or found by what stands beside them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import pydantic
from numpy.typing import NDArray

from configs.schema import config
from preprocessing.corruption.base import Context, Corrupted, Sequences, Targets
from preprocessing.corruption.masking import Choosing, Probability
from preprocessing.corruption.ngrams import Weights, choose_runs, run_weights
from preprocessing.marks import WORD
from preprocessing.tables.base import Table
from preprocessing.tables.cooccurrence import CooccurringSimilar
from preprocessing.tables.similar import GivenSimilar

_ROOM = 1.5


@config
class SimilarConfig(Choosing):
    """Words that others replace; ``share`` counts words.

    Attributes:
        words: where similar words are known from.
        weights: of runs of 1, 2, ... words.
    """

    kind: Literal["similar"]
    words: Annotated[GivenSimilar | CooccurringSimilar, pydantic.Field(discriminator="kind")]
    max_n: Annotated[int, pydantic.Field(ge=1)] = 4
    weights: Weights | None = (0.4, 0.3, 0.2, 0.1)
    similar_probability: Probability = 0.8
    random_probability: Probability = 0.1

    def __post_init__(self) -> None:
        if self.similar_probability + self.random_probability > 1:
            raise ValueError("similar_probability + random_probability must not exceed 1")
        run_weights(self.max_n, self.weights)

    def marks(self) -> int:
        """Where words begin."""
        return WORD

    def tables(self) -> tuple[Table, ...]:
        """The similar words."""
        return (self.words,)

    def num_targets(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Targets of sequences of the given lengths ``[sequences]``, at most."""
        counts: NDArray[np.int64] = np.ceil(lengths * (self.share * _ROOM)).astype(np.int64)
        counts = np.minimum(counts, lengths)
        return counts if self.max_targets is None else np.minimum(counts, self.max_targets)

    def corrupt(
        self, context: Context, sequences: Sequences, *, seed: int, epoch: int
    ) -> Corrupted:
        """Replace words; tokens keep their places."""
        from preprocessing.kernels.similar import replace_words

        keys = sequences.keys(seed, self.kind, epoch)
        counts = self.num_targets(sequences.lengths)
        weights = run_weights(self.max_n, self.weights)
        chosen = choose_runs(context, sequences, keys, counts, weights, share=self.share)
        tokens, places = sequences.tokens.copy(), np.flatnonzero(chosen)
        replace_words(
            tokens,
            chosen,
            sequences.offsets,
            keys,
            context.special.size,
            self.similar_probability,
            self.random_probability,
            context.tables["similar_hashes"],
            context.tables["similar_offsets"],
            context.tables["similar_pieces"],
        )
        targets = Targets(places, sequences.tokens[places])
        return Corrupted(replace(sequences, tokens=tokens), {"masked_lm": targets})
