"""What a layout gives: training sequences as pieces of documents, before any token is copied.

A sequence is one piece or several; a *frame* says which special tokens stand around them.

    frame      two pieces a b c and d e
    cls_sep    [CLS] a b c [SEP] d e [SEP]      BERT, RoBERTa
    sep_cls    a b c [SEP] d e [SEP] [CLS]      XLNet
    sep        a b c [SEP] d e [SEP]            GPT-2, with its <|endoftext|> as separator
    none       a b c d e

A piece may stop one past its document's last token: there stands the document's end, ``<eod>``
where the vocabulary has one and the separator where not. A *backward* sequence holds each of its
pieces from its last token to its first.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from preprocessing.corruption.base import UNLABELLED
from preprocessing.draws import UInt64, sequence_keys
from preprocessing.storage import InputError
from preprocessing.tokens import TokenStore
from preprocessing.vocabulary import Vocabulary

FrameName: TypeAlias = Literal["cls_sep", "sep_cls", "sep", "none"]
PAIR = 2
"""Segments of most sequences: one, and what follows it."""
_INDEX_BITS = 20


@dataclass(frozen=True)
class Frame:
    """How many special tokens stand where around the pieces of a sequence."""

    before: int
    after_each: int
    behind: int

    def around(self, pieces: int) -> int:
        """Special tokens of a sequence of so many pieces."""
        return self.before + self.after_each * pieces + self.behind


FRAMES: dict[FrameName, Frame] = {
    "cls_sep": Frame(1, 1, 0),
    "sep_cls": Frame(0, 1, 1),
    "sep": Frame(0, 1, 0),
    "none": Frame(0, 0, 0),
}


@dataclass(frozen=True)
class Spans:
    """Tokens ``[start, stop)`` of documents, ``[spans]`` each; behind the last one is the end."""

    documents: NDArray[np.int64]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each span."""
        return self.stops - self.starts


@dataclass(frozen=True)
class Cut:
    """Sequences cut from documents.

    Attributes:
        ids: global sequence ids ``[sequences]``.
        pieces: those of all sequences, in order, ``[pieces]``.
        offsets: the first piece of each sequence, and the end, ``[sequences + 1]``.
        first_pieces: pieces that make up the first segment, ``[sequences]``.
        labels: of the sequences ``[sequences]``, ``UNLABELLED`` where there is none.
        frame: the special tokens around the pieces.
        closed: behind which pieces the frame's separator stands ``[pieces]``; None: all.
        backward: which sequences hold their pieces backward ``[sequences]``; None: none.
        segments: segment ids ``[pieces]``; None: 0 in the first segment, 1 behind it.
        left_out: tokens that are in no sequence because they would not fill one.
    """

    ids: UInt64
    pieces: Spans
    offsets: NDArray[np.int64]
    first_pieces: NDArray[np.int64]
    labels: NDArray[np.int64]
    frame: Frame
    closed: NDArray[np.bool_] | None = None
    backward: NDArray[np.bool_] | None = None
    segments: NDArray[np.int64] | None = None
    left_out: int = 0

    @property
    def separators(self) -> NDArray[np.int64]:
        """Separators behind each piece, ``[pieces]``."""
        closed = np.True_ if self.closed is None else self.closed
        return np.full(len(self.pieces.lengths), self.frame.after_each) * closed

    @property
    def num_pieces(self) -> NDArray[np.int64]:
        """Pieces of each sequence."""
        return np.diff(self.offsets)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sequence, specials included."""
        ends = self._tokens_up_to(self.offsets[1:])
        return np.asarray(ends + self.frame.behind, dtype=np.int64)

    @property
    def first_lengths(self) -> NDArray[np.int64]:
        """Tokens up to the end of the first segment, its separator included.

        What stands behind the last piece counts to the first segment where there is no other.
        """
        only = self.first_pieces == self.num_pieces
        ends = self._tokens_up_to(self.offsets[:-1] + self.first_pieces)
        return np.asarray(ends + only * self.frame.behind, dtype=np.int64)

    def _tokens_up_to(self, ends: NDArray[np.int64]) -> NDArray[np.int64]:
        sums = np.concatenate([[0], np.cumsum(self.pieces.lengths + self.separators)])
        return np.asarray(sums[ends] - sums[self.offsets[:-1]] + self.frame.before, dtype=np.int64)


@dataclass(frozen=True)
class Material:
    """What is cut, and how long the sequences may be.

    Attributes:
        store: the tokens of a split.
        documents: those that are cut; others may be looked at.
        length: tokens of a sequence at most, special ones included.
        frame: the special tokens around the pieces.
        seed, copy: the key of all draws.
    """

    store: TokenStore
    documents: range
    length: int
    frame: Frame
    seed: int
    copy: int

    def room(self, pieces: int) -> int:
        """Tokens for so many pieces of a sequence together."""
        return self.length - self.frame.around(pieces)

    def keys(self, purpose: str, ids: NDArray[Any]) -> UInt64:
        """Keys ``[ids]`` of the draws for a purpose."""
        return sequence_keys(self.seed, purpose, self.copy, ids)


class Cutter(Protocol):
    """Cuts documents into sequences."""

    def cut(self, material: Material) -> Cut:
        """As :meth:`Layout.cut`."""


class Layout(abc.ABC):
    """What the configuration of every layout can do."""

    def label(self) -> str | None:
        """The objective that predicts the labels of sequences; None where they have none."""
        return None

    def reads_backward(self) -> bool:
        """Whether some of its sequences hold their pieces backward."""
        return False

    def num_segments(self) -> int:
        """Segment ids are below this; rows hold them where they are not 0 and 1 alone."""
        return PAIR

    def bind(self, vocabulary: Vocabulary) -> Cutter:
        """What cuts: the layout itself, but where it looks for certain words in the tokens."""
        return self

    def consecutive(self) -> bool:
        """Whether each sequence goes on where the one before it ends, so that rows make streams."""
        return False

    @abc.abstractmethod
    def cut(self, material: Material) -> Cut:
        """Cut the documents into sequences of at most ``material.length`` tokens."""


def single_pieces(ids: NDArray[np.int64], pieces: Spans, frame: Frame) -> Cut:
    """Sequences of one piece each, without labels."""
    count = len(ids)
    return Cut(
        ids=ids.astype(np.uint64),
        pieces=pieces,
        offsets=np.arange(count + 1),
        first_pieces=np.ones(count, dtype=np.int64),
        labels=np.full(count, UNLABELLED, dtype=np.int64),
        frame=frame,
    )


def numbered(documents: NDArray[np.int64]) -> UInt64:
    """Ids of sequences that begin in the given documents ``[sequences]``, ascending."""
    index = np.arange(len(documents)) - np.searchsorted(documents, documents)
    pairs = zip(documents.tolist(), index.tolist(), strict=True)
    return np.array([sequence_id(*pair) for pair in pairs], dtype=np.uint64)


def sequence_id(document: int, index: int) -> int:
    """The global id of the index-th sequence of a document: known without counting others."""
    if index >> _INDEX_BITS:
        raise InputError(
            f"document {document} of the tokens holds more than {1 << _INDEX_BITS} sequences; "
            "are corpus.form and the marks between its documents right?"
        )
    return (document << _INDEX_BITS) | index


def document_of(sequence: int) -> int:
    """The document that a sequence begins in, by its global id."""
    return sequence >> _INDEX_BITS
