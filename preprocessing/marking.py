"""Marks of whole sequences: those of their documents, and what only a sequence can tell.

document a b c a d b, a sequence of its pieces c a and b (the last token)
RECURS   c 0, a 1, b 1: two of these three stand elsewhere in the document, too
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.layouts.base import Spans
from preprocessing.marks import RECURS, document_marks
from preprocessing.tokens import TokenStore


class Marker:
    """The wanted marks of sequences; what is known of the last few documents is kept.

    Raises:
        ValueError: the tokens were made without what is asked for.
    """

    def __init__(self, store: TokenStore, wanted: int) -> None:
        self._store, self._wanted = store, wanted
        self._marks = lru_cache(maxsize=4)(lambda document: document_marks(store, document, wanted))
        self._totals = lru_cache(maxsize=4)(lambda document: np.bincount(store.ids(document)))

    def of(self, pieces: Spans, own: range) -> list[NDArray[np.uint8]]:
        """The marks of the pieces of one sequence, ``[tokens]`` each."""
        given = slice(own.start, own.stop)
        documents = pieces.documents[given].tolist()
        borders = np.stack([pieces.starts[given], pieces.stops[given]], axis=1).tolist()
        spans = [slice(start, stop) for start, stop in borders]
        marks = [
            self._marks(document)[span].copy()
            for document, span in zip(documents, spans, strict=True)
        ]
        if self._wanted & RECURS:
            for document in dict.fromkeys(documents):
                members = [index for index, other in enumerate(documents) if other == document]
                ids = [self._store.ids(document)[spans[index]] for index in members]
                for index, recurs in zip(members, self._recurring(document, ids), strict=True):
                    marks[index][recurs] |= RECURS
        return marks

    def _recurring(self, document: int, pieces: list[NDArray[Any]]) -> list[NDArray[np.bool_]]:
        """Which tokens of pieces of a document it has more of than stand in these pieces."""
        ids, where, counts = np.unique(
            np.concatenate(pieces), return_inverse=True, return_counts=True
        )
        elsewhere = self._totals(document)[ids] > counts
        return np.split(elsewhere[where], np.cumsum([len(piece) for piece in pieces])[:-1])
