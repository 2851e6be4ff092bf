"""What a layout gives: training sequences as spans of documents, before any token is copied."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocessing.draws import UInt64
from preprocessing.storage import InputError

NO_DOCUMENT = -1
_INDEX_BITS = 20


@dataclass(frozen=True)
class Spans:
    """Tokens ``[start, stop)`` of documents, ``[sequences]`` each."""

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
        first: the first (or only) segment of each.
        second: the second one; its document is ``NO_DOCUMENT`` where there is none.
        labels: the pair's label (0 next, 1 random), -1 where there is none.
    """

    ids: UInt64
    first: Spans
    second: Spans
    labels: NDArray[np.int8]

    @property
    def first_lengths(self) -> NDArray[np.int64]:
        """Tokens up to and including the first separator, [CLS] included."""
        return self.first.lengths + 2

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sequence, specials included."""
        paired = self.second.documents != NO_DOCUMENT
        return self.first_lengths + np.where(paired, self.second.lengths + 1, 0)


def sequence_id(document: int, index: int) -> int:
    """The global id of the index-th sequence of a document: known without counting others."""
    if index >> _INDEX_BITS:
        raise InputError(
            f"document {document} of the tokens holds more than {1 << _INDEX_BITS} sequences; "
            "are corpus.form and the marks between its documents right?"
        )
    return (document << _INDEX_BITS) | index
