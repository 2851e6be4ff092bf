"""Labels of every token beside another scheme: ERNIE 2.0's token tasks (arXiv 1907.12412).

Section 3.2.1 of the paper has three tasks of single tokens. One is the masking itself, here the
scheme that is wrapped (``then``); the two others ask of every plain token of the original text:

- ``capitalization``: is it part of a capitalised word? (mark CAPITAL, of the text before it was
  lower-cased; the tokens need ``corpus.annotations.capitals``)
- ``token_document``: does it occur in its document outside of this sequence, too? (mark RECURS)

What is asked for stands at the place of the token, whether it is masked there or not; the labels
are those of the original token, so that a masked one asks for both. The wrapped scheme keeps every
token at its place.

    document         New York is big . new | so big        the bar is where the sequence ends
    tokens           [CLS] new york   is big . new [SEP]
    CAPITAL                 1   1     0   0  0  0
    RECURS                  0   0     0   1  0  0          "new" is twice in here, nowhere else
    inputs           [CLS] new [MASK] is big . new [SEP]
    masked_lm        2 -> york
    capitalization   1 -> 1, 2 -> 1, 3 -> 0, 4 -> 0, 5 -> 0, 6 -> 0
    token_document   1 -> 0, 2 -> 0, 3 -> 0, 4 -> 1, 5 -> 0, 6 -> 0

The paper does not say which tokens are asked; here all of them are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
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
from preprocessing.corruption.keeping import KeepsPlaces
from preprocessing.corruption.masked import MaskedConfig
from preprocessing.corruption.masking import reserved
from preprocessing.marks import CAPITAL, RECURS
from preprocessing.tables.base import Table


@config
class LabelledConfig(Scheme):
    """Labels of tokens beside what a scheme asks.

    Attributes:
        then: the scheme that hides tokens.
        capitalization: ask for capitals; of no use where the vocabulary tells them apart.
        token_document: ask for what recurs.
    """

    kind: Literal["labelled"]
    then: KeepsPlaces = MaskedConfig()
    capitalization: bool = True
    token_document: bool = True

    def __post_init__(self) -> None:
        if not self.asked():
            raise ValueError(
                "it asks for nothing: leave capitalization or token_document true, or give the "
                f"corruption '{self.then.kind}' alone"
            )

    def asked(self) -> dict[str, int]:
        """The mark that answers each question, by the name of its objective."""
        questions = {
            "capitalization": CAPITAL if self.capitalization else 0,
            "token_document": RECURS if self.token_document else 0,
        }
        return {name: mark for name, mark in questions.items() if mark}

    def marks(self) -> int:
        """Those of the wrapped scheme, and those that answer."""
        return self.then.marks() | sum(self.asked().values())

    def attention(self) -> str | None:
        """As the wrapped scheme."""
        return self.then.attention()

    def num_segments(self) -> int:
        """As the wrapped scheme."""
        return self.then.num_segments()

    def check(self, context: Context, length: int) -> None:
        """As the wrapped scheme does."""
        self.then.check(context, length)

    def tables(self) -> tuple[Table, ...]:
        """Those of the wrapped scheme."""
        return self.then.tables()

    def bounds(self, context: Context, lengths: NDArray[np.int64]) -> Bounds:
        """Those of the wrapped scheme, and a label a token."""
        inner = self.then.bounds(context, lengths)
        return replace(inner, targets={**inner.targets, **dict.fromkeys(self.asked(), lengths)})

    def corrupt(
        self, context: Context, sequences: Sequences, *, seed: int, epoch: int
    ) -> Corrupted:
        """Corrupt by the wrapped scheme, and label the original tokens."""
        inner = self.then.corrupt(context, sequences, seed=seed, epoch=epoch)
        assert (inner.inputs.offsets == sequences.offsets).all(), self.then.kind
        places = np.flatnonzero(~np.isin(sequences.tokens, reserved(context.special)))
        labels = {
            name: Targets(places, (sequences.marks[places] & mark > 0).astype(np.int64))
            for name, mark in self.asked().items()
        }
        return replace(inner, targets={**inner.targets, **labels})
