"""From chunks to a column's tokens: the ids, which begin words, and where the marks lie."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import boolean, int32, int64, uint16, uint32
from numpy.typing import NDArray

from preprocessing.compiled import PLACES, compiled
from preprocessing.tokenization.base import Encoded
from preprocessing.tokenization.dictionary import (
    COUNT,
    IDS,
    LENGTH,
    TEXT_END,
    Dictionary,
)


class Gathering:
    """Puts the tokens of a column together, some chunks at a time."""

    def __init__(
        self, num_texts: int, marks: NDArray[np.int64], id_type: type[np.uint16] | type[np.uint32]
    ) -> None:
        self._id_type = id_type
        self._ids: list[NDArray[Any]] = []
        self._word_starts: list[NDArray[np.bool_]] = []
        self._offsets = np.zeros(num_texts + 1, np.int64)
        self._marks = np.ascontiguousarray(marks, np.int64)
        self._places = np.zeros(len(marks), np.int64)
        self._exact = np.zeros(len(marks), np.bool_)
        self._state = np.zeros(3, np.int64)  # texts, marks and tokens that are done

    def add(
        self, dictionary: Dictionary, starts: NDArray[np.int64], found: NDArray[np.int32]
    ) -> None:
        """Append the tokens of some chunks, each at its place and with its entry."""
        count = int(dictionary.entries[found, COUNT].sum(where=found >= 0))
        ids = np.empty(count, self._id_type)
        word_starts = np.empty(count, np.bool_)
        pool = dictionary.pool
        _gather(
            starts, found, dictionary.entries, pool.ids, pool.starts_word, pool.begins,
            pool.stops, ids, word_starts, self._offsets,
            self._marks, self._places, self._exact, self._state,
        )  # fmt: skip
        self._ids.append(ids)
        self._word_starts.append(word_starts)

    def finish(self) -> Encoded:
        """The column, once all of its chunks are there."""
        return Encoded(
            np.concatenate([np.zeros(0, self._id_type), *self._ids]),
            self._offsets,
            np.concatenate([np.zeros(0, np.bool_), *self._word_starts]),
            self._places,
            self._exact,
        )


@compiled(
    *(
        (int64[::1], int32[::1], int32[:, ::1], uint32[::1], boolean[::1], int32[::1], int32[::1],
         ids[::1], boolean[::1], int64[::1],
         PLACES, int64[::1], boolean[::1], int64[::1])
        for ids in (uint16, uint32)
    )
)  # fmt: skip
def _gather(  # type: ignore[no-untyped-def]
    starts, found, entries, pool_ids, pool_starts, pool_begins, pool_stops,
    ids, word_starts, offsets, marks, places, exact, state
):  # fmt: skip
    text, mark, before = state[0], state[1], state[2]
    num_texts, num_marks = len(offsets) - 1, len(marks)
    token = 0
    for i in range(len(starts)):
        start = starts[i]
        entry = found[i]
        if entry == TEXT_END:
            text += 1
            offsets[text] = before + token
            while mark < num_marks and (marks[mark] < start or text == num_texts):
                places[mark] = before + token
                exact[mark] = True
                mark += 1
            continue
        while mark < num_marks and marks[mark] <= start:
            places[mark] = before + token
            exact[mark] = True
            mark += 1
        first = entries[entry, IDS]
        count = entries[entry, COUNT]
        for k in range(count):
            ids[token + k] = pool_ids[first + k]
            word_starts[token + k] = pool_starts[first + k]
        if mark < num_marks:
            stop = start + entries[entry, LENGTH]
            k = 0
            while mark < num_marks and marks[mark] < stop:
                inside = marks[mark] - start
                while k < count and pool_begins[first + k] < inside:
                    k += 1
                places[mark] = before + token + k
                exact[mark] = k == 0 or pool_stops[first + k - 1] <= inside
                mark += 1
        token += count
    state[0], state[1], state[2] = text, mark, before + token
