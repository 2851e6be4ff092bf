"""Text infilling and sentence permutation as BART has them (arXiv 1910.13461; fairseq denoising).

The sentences change places, all orders being equally likely. Then spans of words are drawn until
they hold ``ceil(share * words)`` words, their lengths from a Poisson distribution, the last one cut
to fit. Spans begin at words chosen without replacement; each becomes a single [MASK], and where one
runs into the beginning of another, one [MASK] is left of both. A span of no words is a [MASK] put
in between, at a place chosen uniformly. Some of the masks are random tokens instead. The decoder is
to say the original, and begins with </s>.

    <s> a b . c d e . </s>                 two sentences; ceil(0.3 * 7) = 3 words are to go
    <s> c d e . a b . </s>                 in another order; spans of 1, 2 and 0 words
    <s> c d [MASK] . [MASK] a [MASK] </s>  "e" and "b ." are gone, a mask stands before "a"
    said       <s> a b . c d e . </s>
    decoder    </s> <s> a b . c d e .

Deviations: masks are put in between only as far as the inputs do not become longer than the
original (measured: left out in 5 % of sequences of up to three one-piece words, in 0.3 % of those
of 20, in none of 3,000 of 40); each of them is random with the same probability as any other,
where fairseq rounds the number up; random tokens come from the whole vocabulary. Special tokens
keep their places and part the text; the frame is ``cls_sep``.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
import pydantic
from numpy.typing import NDArray

from configs.schema import config
from preprocessing.corruption.base import Bounds, Context, Corrupted, Scheme, Sequences, Side
from preprocessing.corruption.decoding import DENOISING, denoised, offsets_of
from preprocessing.marks import SENTENCE, WORD

_TAIL = 1e-12  # longer spans than those of this probability are never drawn


@config
class InfillingConfig(Scheme):
    """BART's noise.

    Attributes:
        permute: the sentences.
        share: of the words, as far as spans do not run into each other.
        mean_length: of the spans, in words, those of no words included.
        random_share: of the masks that are random tokens instead.
    """

    kind: Literal["infilling"]
    permute: bool = True
    share: Annotated[float, pydantic.Field(gt=0.0, lt=1.0)] = 0.3
    mean_length: Annotated[float, pydantic.Field(gt=0.0, le=100.0)] = 3.0
    random_share: Annotated[float, pydantic.Field(ge=0.0, le=1.0)] = 0.1

    def marks(self) -> int:
        """Where words and sentences begin."""
        return WORD | (SENTENCE if self.permute else 0)

    def check(self, context: Context, length: int) -> None:
        """It needs [MASK] and </s>."""
        context.special.require(f"corruption '{self.kind}'", "separator", "mask")

    def bounds(self, context: Context, lengths: NDArray[np.int64]) -> Bounds:
        """The inputs are not longer than the original, which is what the decoder says."""
        return Bounds(lengths, {DENOISING: lengths}, lengths)

    def corrupt(
        self, context: Context, sequences: Sequences, *, seed: int, epoch: int
    ) -> Corrupted:
        """Let the decoder say what the encoder sees in disorder and with holes."""
        from preprocessing.kernels.infilling import fill_in, permute

        special = context.special
        reserved = np.array([special.start, special.separator, special.pad, special.end])
        keys = sequences.keys(seed, "infilling", epoch)
        tokens, marks = sequences.tokens.copy(), sequences.marks.copy()
        if self.permute:
            permute(
                sequences.tokens, sequences.marks, sequences.offsets, keys, reserved, tokens, marks
            )
        lengths = np.empty(len(keys), dtype=np.int64)
        written = fill_in(
            tokens,
            marks,
            sequences.offsets,
            keys,
            reserved,
            poisson_ends(self.mean_length),
            special.mask,
            special.size,
            self.share,
            self.random_share,
            lengths,
        )
        said = Side(sequences.tokens, sequences.offsets)
        return denoised(sequences, tokens[:written], offsets_of(lengths), said, special.separator)


def poisson_ends(mean: float) -> NDArray[np.float64]:
    """The probabilities of at most 0, 1, 2, ... of a Poisson distribution, up to 1."""
    sums, term, number = [math.exp(-mean)], math.exp(-mean), 0
    while number < mean or term > _TAIL:
        number += 1
        term *= mean / number
        sums.append(sums[-1] + term)
    return np.array([*sums[:-1], 1.0])
