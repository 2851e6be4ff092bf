"""What every corruption scheme takes and gives: sequences one behind the other, without padding.

    tokens     [CLS] a b [SEP]  [CLS] c [SEP]
    offsets    0                4              7
    ids        70               93                    one a sequence, the key of its draws
    marks      0     1 0 0      0     1 0             what is known of each token (marks.py)

A scheme is a pure function of the sequences, the seed and the epoch. It gives the inputs that a
model sees, which may be longer or shorter than what it took, and the places where something is to
be predicted; for encoder-decoders also the decoder's inputs.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.draws import UInt64, sequence_keys
from preprocessing.storage import InputError
from preprocessing.tables.base import Table

ABSENT = -1
"""The id of a special token that a vocabulary does not have."""
UNLABELLED = -1
"""The label of a sequence that has none."""


@dataclass(frozen=True)
class SpecialIds:
    """What a corruption must know of a vocabulary; ``ABSENT`` where it has no such token.

    Attributes:
        size: number of ids.
        end: ends a document (XLNet's ``<eod>``); where it is absent the separator does.
        sentinels: ids that stand for removed spans, the first one first.
    """

    size: int
    pad: int = ABSENT
    start: int = ABSENT
    separator: int = ABSENT
    mask: int = ABSENT
    end: int = ABSENT
    sentinels: tuple[int, ...] = ()

    def require(self, who: str, *roles: str) -> None:
        """See that the vocabulary has the tokens of some roles.

        Raises:
            InputError: it has not.
        """
        missing = [role for role in roles if getattr(self, role) == ABSENT]
        if missing:
            raise InputError(
                f"{who} needs a vocabulary with special tokens for {', '.join(missing)}; where "
                "tokens of other names play these roles, name them in tokenizer.specials"
            )


@dataclass(frozen=True)
class Sequences:
    """Whole sequences, the tokens of each behind those of the one before.

    Attributes:
        tokens: ids ``[tokens]``, special ones included.
        offsets: where each sequence begins, and the last one ends, ``[sequences + 1]``.
        ids: global sequence ids, ``[sequences]``.
        first_lengths: tokens up to the end of the first segment, ``[sequences]``.
        labels: of the sequences ``[sequences]``, ``UNLABELLED`` where there is none.
        marks: what is known of each token ``[tokens]``; empty where nobody asked for them.
        backward: which sequences hold their text from its end to its beginning, ``[sequences]``;
            empty where none does.
        segments: segment ids ``[tokens]``; empty where they follow from ``first_lengths``.
    """

    tokens: NDArray[np.int64]
    offsets: NDArray[np.int64]
    ids: UInt64
    first_lengths: NDArray[np.int64]
    labels: NDArray[np.int64]
    marks: NDArray[np.uint8]
    backward: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    segments: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sequence, ``[sequences]``."""
        return np.diff(self.offsets)

    def keys(self, seed: int, purpose: str, epoch: int) -> UInt64:
        """One key a sequence for the draws of a purpose, ``[sequences]``."""
        return sequence_keys(seed, purpose, epoch, self.ids)


@dataclass(frozen=True)
class Targets:
    """Where something is to be predicted, and what.

    Attributes:
        places: in the tokens of the inputs, or of the decoder's inputs, ``[targets]``.
        labels: ids or classes, ``[targets]``.
        extra: more columns by name, ``[targets]`` each, int64 or float32; those named ``*_place``
            are places too.
        of_decoder: whether the places are the decoder's.
    """

    places: NDArray[np.int64]
    labels: NDArray[np.int64]
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    of_decoder: bool = False


@dataclass(frozen=True)
class Side:
    """The inputs of a decoder: ``tokens`` and ``offsets`` as in :class:`Sequences`."""

    tokens: NDArray[np.int64]
    offsets: NDArray[np.int64]


@dataclass(frozen=True)
class Corrupted:
    """What a model sees, and what it is asked.

    Attributes:
        inputs: the sequences as they are shown, in the order in which they came.
        targets: by the name of the objective.
        channels: further facts of each input token, ``[tokens]`` int64, by name. ``positions`` and
            ``segment_ids`` replace what is counted otherwise; others go to the model as they are.
        decoder: the decoder's inputs.
    """

    inputs: Sequences
    targets: Mapping[str, Targets]
    channels: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    decoder: Side | None = None


@dataclass(frozen=True)
class Bounds:
    """At most so much does a scheme make of sequences of given lengths, ``[sequences]`` each.

    Rows are packed by them, and static shapes follow from them: they hold in every epoch.

    Attributes:
        inputs: tokens of the inputs.
        targets: by the name of the objective.
        decoder: tokens of the decoder's inputs; None where there is no decoder.
    """

    inputs: NDArray[np.int64]
    targets: Mapping[str, NDArray[np.int64]]
    decoder: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Context:
    """What a scheme knows beyond the sequences.

    Attributes:
        special: the vocabulary's special ids.
        tables: the arrays of the tables that the scheme asked for, by name (``frequencies``
            ``[size]``, ...).
    """

    special: SpecialIds
    tables: Mapping[str, NDArray[Any]] = field(default_factory=dict)


class Scheme(abc.ABC):
    """What the configuration of every scheme can do."""

    def marks(self) -> int:
        """The marks (:mod:`preprocessing.marks`) that it asks for, as bits."""
        return 0

    def attention(self) -> str | None:
        """What a model's attention must heed beyond whole sequences; None where it is nothing.

        ``causal`` (no token sees later ones), ``seen_by``, ``ranks``, ``others`` (no token sees
        itself).
        """
        return None

    def num_segments(self) -> int:
        """Segment ids that it gives are below this."""
        return 2

    def keeps_positions(self) -> bool:
        """Whether tokens keep the positions of sequences that were longer."""
        return False

    def reads_backward(self) -> bool:
        """Whether it knows that sequences may hold their text backward, as XLNet's rows do."""
        return False

    def keeps_segments(self) -> bool:
        """Whether tokens stay where they are, in the segments that a layout gave them."""
        return False

    def tables(self) -> tuple[Table, ...]:
        """The tables that it asks for; their arrays are those of the :class:`Context`."""
        return ()

    def check(self, context: Context, length: int) -> None:  # noqa: B027 - most need nothing
        """See that the vocabulary has what sequences of at most ``length`` tokens need.

        Raises:
            InputError: it has not; with a way out.
        """

    @abc.abstractmethod
    def bounds(self, context: Context, lengths: NDArray[np.int64]) -> Bounds:
        """At most so much does it make of sequences of the given lengths ``[sequences]``."""

    @abc.abstractmethod
    def corrupt(
        self, context: Context, sequences: Sequences, *, seed: int, epoch: int
    ) -> Corrupted:
        """Corrupt sequences; a pure function of them, the seed and the epoch.

        Also of none at all, so that the names of targets and channels can be asked for.
        """
