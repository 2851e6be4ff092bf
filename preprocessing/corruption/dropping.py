"""Dropped tokens before another scheme (DropToken, the companion of kexue.fm/archives/8770).

Of a sequence of n tokens, specials counted, round(share * (n - 3)) plain ones are left out, those
with the smallest draws; another scheme corrupts the rest as if it had been given so. What stays
keeps its position, so that the model meets gaps instead of [MASK]s. A row of ``length`` tokens
takes longer sequences than it could hold whole, and the model as many positions.

    n = 10, share 0.3:  round(0.3 * 7) = 2 tokens go; then one of the 8 left is masked
    given       [CLS] he went to the old store on foot [SEP]
    inputs      [CLS] he went    the [MASK]    on foot [SEP]      targets: 4 -> old
    positions     0   1   2       4    5        7   8    9

Where the first token of a word or a sentence is left out, the next one of it begins it instead.
Three tokens are not counted so that some plain one always stays: a layout puts at most one special
token more around plain ones than there are of these.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import pydantic
from numpy.typing import NDArray

from configs.schema import config
from preprocessing.corruption.base import Bounds, Context, Corrupted, Scheme, Sequences
from preprocessing.corruption.keeping import KeepsPlaces
from preprocessing.corruption.masked import MaskedConfig
from preprocessing.corruption.masking import reserved
from preprocessing.tables.base import Table


@config
class DropTokensConfig(Scheme):
    """Leaves out a ``share`` of the plain tokens, then corrupts the rest as ``then`` says."""

    kind: Literal["drop_tokens"]
    share: Annotated[float, pydantic.Field(gt=0.0, le=0.5)] = 0.15
    then: KeepsPlaces = MaskedConfig()

    def marks(self) -> int:
        """Those of the other scheme."""
        return self.then.marks()

    def tables(self) -> tuple[Table, ...]:
        """Those of the other scheme."""
        return self.then.tables()

    def attention(self) -> str | None:
        """As the other scheme."""
        return self.then.attention()

    def num_segments(self) -> int:
        """As the other scheme."""
        return self.then.num_segments()

    def keeps_positions(self) -> bool:
        """Those of the tokens before some were dropped."""
        return True

    def check(self, context: Context, length: int) -> None:
        """As the other scheme does."""
        self.then.check(context, length)

    def num_dropped(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens that sequences of the given lengths ``[sequences]`` lose."""
        return np.rint(self.share * np.maximum(0, lengths - 3)).astype(np.int64)

    def bounds(self, context: Context, lengths: NDArray[np.int64]) -> Bounds:
        """What the other scheme makes of the sequences after their loss."""
        return self.then.bounds(context, lengths - self.num_dropped(lengths))

    def corrupt(
        self, context: Context, sequences: Sequences, *, seed: int, epoch: int
    ) -> Corrupted:
        """Leave tokens out, and corrupt what is left.

        Raises:
            ValueError: a sequence has fewer plain tokens than it is to lose.
        """
        kept, shorter = self._drop(context, sequences, seed, epoch)
        corrupted = self.then.corrupt(context, shorter, seed=seed, epoch=epoch)
        assert (corrupted.inputs.offsets == shorter.offsets).all(), self.then.kind
        positions = kept - np.repeat(sequences.offsets[:-1], shorter.lengths)
        return replace(corrupted, channels={**corrupted.channels, "positions": positions})

    def _drop(
        self, context: Context, sequences: Sequences, seed: int, epoch: int
    ) -> tuple[NDArray[np.int64], Sequences]:
        """Places of what stays ``[tokens]``, and the sequences of it."""
        from preprocessing.kernels.dropping import choose_kept, move_marks

        counts = self.num_dropped(sequences.lengths)
        kept = np.empty(len(sequences.tokens) - counts.sum(), dtype=np.int64)
        short_of = choose_kept(
            sequences.tokens,
            sequences.offsets,
            sequences.keys(seed, "drop tokens", epoch),
            counts,
            reserved(context.special),
            kept,
        )
        if short_of >= 0:
            raise ValueError(
                f"sequence {sequences.ids[short_of]} has less than {counts[short_of]} plain tokens "
                "to drop; special tokens must not stand in a row"
            )
        offsets = sequences.offsets - np.concatenate([[0], np.cumsum(counts)])
        first = sequences.offsets[:-1] + sequences.first_lengths
        marks = sequences.marks
        if len(marks):
            marks = move_marks(
                marks, sequences.tokens, sequences.offsets, reserved(context.special), kept
            )
        shorter = replace(
            sequences,
            tokens=sequences.tokens[kept],
            offsets=offsets,
            first_lengths=np.searchsorted(kept, first) - offsets[:-1],
            marks=marks,
        )
        return kept, shorter
