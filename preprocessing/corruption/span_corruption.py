"""Span corruption as T5 has it (arXiv 1910.10683; text-to-text-transfer-transformer).

Of n tokens ``noise = round(share * n)`` are removed, at least 1 and at most n - 1, in
``max(1, round(noise / mean_length))`` spans. The noise and the rest are each cut into so many
pieces, all cuts being equally likely, and laid out in turns, the rest first: the first token always
stays, the last one always goes. The inputs hold a sentinel for every span and end with </s>; the
decoder is to say each sentinel and what it stands for, then </s>. Sentinels begin anew in every
sequence.

    n = 10, share 0.4, mean_length 2: 4 tokens go in 2 spans, cut 3 + 1; the rest is cut 4 + 2
    Thank you for inviting me to your party last week
    inputs    Thank you for inviting <0> party last <1> </s>
    said      <0> me to your <1> week </s>
    decoder   [PAD] <0> me to your <1> week

Deviations: a sequence of a single token loses it (the reference leaves it and asks for nothing),
and there are never more spans than tokens that stay. There is no closing sentinel, as in the
reference; a figure of the paper shows one. Special tokens of the frame are left out first: the
frame is ``none``.
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
    Side,
    SpecialIds,
)
from preprocessing.corruption.decoding import (
    DENOISING,
    denoised,
    offsets_of,
    plain_tokens,
)
from preprocessing.corruption.fitting import longest_fitting
from preprocessing.storage import InputError


@config
class SpanCorruptionConfig(Scheme):
    """T5's spans. ``mean_length`` is that of a span, in tokens."""

    kind: Literal["span_corruption"]
    share: Annotated[float, pydantic.Field(gt=0.0, lt=1.0)] = 0.15
    mean_length: Annotated[float, pydantic.Field(ge=1.0)] = 3.0

    def num_noise(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens that are removed of sequences of some plain tokens, rounded half to even."""
        noise = np.minimum(np.rint(lengths * self.share), lengths - 1)
        counts: NDArray[np.int64] = np.minimum(np.maximum(noise, 1), lengths).astype(np.int64)
        return counts

    def num_spans(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Spans in which they are removed."""
        noise = self.num_noise(lengths)
        spans = np.minimum(np.rint(noise / self.mean_length), lengths - noise)
        counts: NDArray[np.int64] = np.minimum(np.maximum(spans, 1), noise).astype(np.int64)
        return counts

    def check(self, context: Context, length: int) -> None:
        """It needs </s>, a token to begin with, and a sentinel a span."""
        context.special.require(f"corruption '{self.kind}'", "separator", "pad")
        needed, there = int(self.num_spans(np.array([length]))[0]), len(context.special.sentinels)
        if needed > there:
            raise InputError(
                f"corruption '{self.kind}' makes up to {needed} spans of {length} tokens, and the "
                f"vocabulary has {there} sentinels (<extra_id_0>, ...); train one with "
                f"tokenizer.sentinels: {needed}, give a larger mean_length, or shorter sequences"
            )

    def bounds(self, context: Context, lengths: NDArray[np.int64]) -> Bounds:
        """Exactly so much, where there are no special tokens."""
        noise, spans = self.num_noise(lengths), self.num_spans(lengths)
        said = noise + spans + 1
        return Bounds(lengths - noise + spans + 1, {DENOISING: said}, said)

    def corrupt(
        self, context: Context, sequences: Sequences, *, seed: int, epoch: int
    ) -> Corrupted:
        """Put sentinels in the place of spans, and let the decoder say them."""
        from preprocessing.kernels.span_corruption import remove_spans

        special = context.special
        tokens, begins = plain_tokens(context, sequences)
        lengths = np.diff(begins)
        limits = self.bounds(context, lengths)
        assert limits.decoder is not None
        offsets, said_offsets = offsets_of(limits.inputs), offsets_of(limits.decoder)
        spans = self.num_spans(lengths)
        if spans.size and spans.max() > len(special.sentinels):
            self.check(context, int(lengths.max()))
        inputs, said = np.empty(offsets[-1], np.int64), np.empty(said_offsets[-1], np.int64)
        remove_spans(
            tokens,
            begins,
            sequences.keys(seed, "span corruption", epoch),
            self.num_noise(lengths),
            spans,
            np.array(special.sentinels, dtype=np.int64),
            special.separator,
            inputs,
            said,
        )
        return denoised(sequences, inputs, offsets, Side(said, said_offsets), special.pad)


def raw_length_of(length: int, share: float, mean_length: float) -> tuple[int, int]:
    """How long sequences are cut so that their inputs, </s> included, fill rows of ``length``.

    As the reference's ``random_spans_helper``: with a share of one half the decoder is not to say
    more than ``length`` either.

    >>> raw_length_of(512, share=0.15, mean_length=3.0)
    (568, 114)

    Returns:
        Tokens of a sequence, and of what the decoder says.
    """
    scheme = SpanCorruptionConfig(kind="span_corruption", share=share, mean_length=mean_length)
    anything = Context(SpecialIds(size=0))
    tokens = longest_fitting(scheme, anything, length, length if share == 0.5 else None)
    said = scheme.bounds(anything, np.array([tokens])).decoder
    assert said is not None
    return tokens, int(said[0])
