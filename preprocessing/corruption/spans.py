"""Spans and their boundaries as SpanBERT has them (arXiv 1907.10529; facebookresearch/SpanBERT).

Of the n plain tokens of a sequence ceil(share * n) are hidden, in spans of whole words. A try draws
a length of 1 to ``max_words`` words, p(l) ~ (1 - p)^(l - 1), and an anchor among the plain tokens;
an anchor that is hidden already is drawn anew. The span begins with the anchor's word and runs over
what is hidden before it; the last one ends, mid-word, where all are found. Spans that touch are one
from then on. Each span as a whole is hidden by [MASK] with 0.8, by tokens drawn one by one as often
as they occur in the training tokens with 0.1, and stays with 0.1.

The *boundary objective* asks for the tokens of a span, by their index in it, of the two tokens that
stand before and behind it. A span that reaches to the edge of its segment has no such two and is
not asked for, nor are tokens from ``max_span_index`` on (the reference cuts spans off, too).

    n = 17 plain tokens, ceil(0.15 * 17) = 3: the span that begins with "gard" ends after 3 of them
    [CLS] the old gard ##en ##er ##s wal ##ked to the door of the house by the sea [SEP]
    [CLS] the old [MASK] [MASK] [MASK] ##s wal ##ked to the door of the house by the sea [SEP]
    masked_lm       3 -> gard   4 -> ##en   5 -> ##er
    span_boundary   2, 6: 0 -> gard, 1 -> ##en, 2 -> ##er

Deviations: special tokens are part of a sequence here and only put around it in the reference;
none of them is chosen, and n does not count them. Where a sequence has several segments, spans keep
to theirs.
"""

from __future__ import annotations

from dataclasses import replace
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
from preprocessing.corruption.masking import Probability, reserved
from preprocessing.marks import WORD
from preprocessing.tables.base import Table
from preprocessing.tables.frequencies import FrequenciesTable


@config
class SpansConfig(Scheme):
    """SpanBERT's spans.

    Attributes:
        share: of the plain tokens that is hidden.
        p: of the geometric distribution of lengths in words.
        max_words: of a span before it meets others.
        max_span_index: so many tokens of a span are asked of its boundary.
    """

    kind: Literal["spans"]
    share: Annotated[float, pydantic.Field(gt=0.0, lt=1.0)] = 0.15
    p: Annotated[float, pydantic.Field(gt=0.0, lt=1.0)] = 0.2
    max_words: Annotated[int, pydantic.Field(ge=1)] = 10
    max_span_index: Annotated[int, pydantic.Field(ge=1)] = 15
    mask_probability: Probability = 0.8
    random_probability: Probability = 0.1

    def __post_init__(self) -> None:
        if self.mask_probability + self.random_probability > 1:
            raise ValueError("mask_probability + random_probability must not exceed 1")

    def check(self, context: Context, length: int) -> None:
        """It needs [MASK]."""
        context.special.require(f"corruption '{self.kind}'", "mask")

    def marks(self) -> int:
        """Where words begin."""
        return WORD

    def tables(self) -> tuple[Table, ...]:
        """How often tokens occur."""
        return (FrequenciesTable(),)

    def length_shares(self) -> NDArray[np.float64]:
        """How likely a span has 1, 2, ... words, ``[max_words]``."""
        weights = (1 - self.p) ** np.arange(self.max_words)
        return np.asarray(weights / weights.sum(), dtype=np.float64)

    def bounds(self, context: Context, lengths: NDArray[np.int64]) -> Bounds:
        """As long as before; all that is hidden may be asked of boundaries, save the two ends."""
        counts = np.ceil(lengths * self.share).astype(np.int64)
        asked = np.minimum(counts, np.maximum(lengths - 2, 0))
        return Bounds(lengths, {"masked_lm": counts, "span_boundary": asked})

    def corrupt(
        self, context: Context, sequences: Sequences, *, seed: int, epoch: int
    ) -> Corrupted:
        """Hide spans; tokens keep their places."""
        from preprocessing.kernels.spans import mask_spans

        special = context.special
        most = int(self.bounds(context, sequences.lengths).targets["masked_lm"].sum())
        tokens = sequences.tokens.copy()
        places, pairs = np.empty(most, dtype=np.int64), np.empty((4, most), dtype=np.int64)
        num_places, num_pairs = mask_spans(
            tokens,
            sequences.tokens,
            sequences.marks,
            sequences.offsets,
            sequences.first_lengths,
            sequences.keys(seed, "spans", epoch),
            reserved(special),
            special.mask,
            self.share,
            self.mask_probability,
            self.random_probability,
            np.cumsum(self.length_shares()[:-1]),
            context.tables["cumulative_frequencies"],
            self.max_span_index,
            places,
            pairs,
        )
        places = places[:num_places]
        left, right, index, labels = pairs[:, :num_pairs]
        return Corrupted(
            replace(sequences, tokens=tokens),
            {
                "masked_lm": Targets(places, sequences.tokens[places]),
                "span_boundary": Targets(left, labels, {"right_place": right, "index": index}),
            },
        )
