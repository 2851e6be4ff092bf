"""Permutations as XLNet has them (arXiv 1906.08237; zihangdai/xlnet, ``data_utils.py``).

Nothing is replaced: some tokens are *targets*, and an order says who may see whom. A sequence is
two halves, of n // 2 tokens and the rest; each has an order of its own.

Of n tokens about n / context are picked, the first half picking the odd one: 43 + 42 of 512 with
a context of 6. A half is walked from its text's beginning: a span length l is drawn with p(l) ~ 1/l
from 1..max_span, and a context of ``context * l`` places, laid around the span at random; the span
takes l tokens from the next word start on. What is still missing when the walk reaches the half's
end are single tokens, all equally likely. Picks that fall on special tokens are no targets, so
there are at most as many targets as picks.

**ranks** (a channel) is the whole attention rule. The smallest rank of a half belongs to its plain
tokens that are no targets; targets and special tokens have higher ones, each its own, in random
order; all ranks of the second half are above those of the first. Ranks count from 0 without gaps,
and no target has rank 0.

    content stream   query i sees key j where ranks[j] <= ranks[i]     (its own token, too)
    query stream     target i sees key j where ranks[j] < ranks[i]     (never its own token)

Eight tokens, context 3: round(8 / 3) = 3 picks, two of them in the first half.

    place        0    1    2    3    4    5    6      7
    tokens       we   all  saw  it   come back [SEP]  [CLS]
    targets           all       it        back
    ranks        0    2    0    1    3    5    4      6
    segment_ids  0    0    0    0    0    0    0      2        all of it one segment
    directions   1    1    1    1    1    1    1      1

    it     a target, sees     we saw
    all    a target, sees     we saw it
    come   no target, sees    we all saw it, itself              no target of its own half
    back   a target, sees     we all saw it come [SEP]
    [SEP]  no target, sees    we all saw it come, itself

**segment_ids** are 0 and 1 as always, and 2 for the start token ([CLS], which XLNet has last).
**directions** are 1, and -1 in a sequence that holds its text backward: what a family computes as
``i - j`` from places is to be multiplied by it.

Deviations from the reference: where it asks the spelling of a piece whether a word begins there,
the word marks say so. Its quirk that a span's end is sought by looking at the span's first piece,
so that l counts pieces and a span that would touch the half's end ends the walk, is kept. A first
half keeps a plain token that is no target, so that every target sees a key; it only matters in
sequences of a few tokens. The reference's permutation leaves gaps in the ranks.
"""

from __future__ import annotations

from typing import Annotated, Literal

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
from preprocessing.marks import WORD


@config
class PermutationConfig(Scheme):
    """XLNet's targets and orders.

    Attributes:
        context: tokens to a target, the target among them.
        max_span: tokens of the longest span.
    """

    kind: Literal["permutation"]
    context: Annotated[int, pydantic.Field(ge=2)] = 6
    max_span: Annotated[int, pydantic.Field(ge=1)] = 5

    def marks(self) -> int:
        """Spans begin where words do."""
        return WORD

    def num_picks(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Picks in sequences of the given lengths ``[sequences]``; rounds half up."""
        return np.maximum(1, (2 * lengths + self.context) // (2 * self.context))

    def attention(self) -> str:
        """Tokens see lower ranks."""
        return "ranks"

    def num_segments(self) -> int:
        """The start token has a segment of its own."""
        return 3

    def reads_backward(self) -> bool:
        """Half of XLNet's rows do."""
        return True

    def bounds(self, context: Context, lengths: NDArray[np.int64]) -> Bounds:
        """As long as before; no more targets than picks."""
        return Bounds(lengths, {"permutation_lm": self.num_picks(lengths)})

    def corrupt(
        self, context: Context, sequences: Sequences, *, seed: int, epoch: int
    ) -> Corrupted:
        """Choose targets and orders; every token stays what it is, where it is."""
        from preprocessing.kernels.permutation import choose_targets

        special, tokens, lengths = context.special, sequences.tokens, sequences.lengths
        picks = self.num_picks(lengths)
        backward = np.zeros(len(lengths), dtype=np.bool_)
        if len(sequences.backward):
            backward = sequences.backward
        ranks, places = np.empty_like(tokens), np.empty(int(picks.sum()), dtype=np.int64)
        found = choose_targets(
            tokens,
            sequences.marks,
            sequences.offsets,
            backward.astype(np.int64),
            sequences.keys(seed, "permutation", epoch),
            picks,
            np.array([special.start, special.separator, special.pad, special.end]),
            self.context,
            self.max_span,
            ranks,
            places,
        )
        places = places[:found]
        within = np.arange(len(tokens)) - np.repeat(sequences.offsets[:-1], lengths)
        segments = (within >= np.repeat(sequences.first_lengths, lengths)).astype(np.int64)
        channels = {
            "ranks": ranks,
            "segment_ids": np.where(tokens == special.start, 2, segments),
            "directions": np.repeat(np.where(backward, -1, 1), lengths),
        }
        targets = Targets(places, tokens[places])
        return Corrupted(sequences, {"permutation_lm": targets}, channels)
