"""Rows as XLNet has them: two segments behind text that is read anew (arXiv 1906.08237).

From zihangdai/xlnet, ``data_utils.py``.

    [reused text] [A] [SEP] [B] [SEP] [CLS]        with frame sep_cls; at 512: 256, A + B = 253

The documents of a token shard, each with its end (``<eod>``) behind it, are one running text. Row t
begins at its token t * r, where r is half the length: what follows the reused text of a row is
the reused text of the next one, so that rows read one after the other continue each other, and a
memory of a row's first r tokens is what the next one goes on from. A begins right behind the
reused text and ends with a random sentence that ends within the row; B is what follows or, with
probability 0.5 and always where A's first sentence fills the row, other text from a random place of
the running text. Both are whole sentences at first, and lose tokens at their ends, the longer one
first (B where they are equal), until the row has exactly ``length`` tokens. B's origin is not a
label: XLNet predicts tokens alone.

    text, length 16      0 1 2 3 | 4 5 6 7 | 8 9 | 10 11 | 12 13 14 15 16 <eod>
    row 0, B follows     0 1 2 3 4 5 6 7   8 9 [SEP]   10 11 12 [SEP]   [CLS]
    or                   0 1 2 3 4 5 6 7   8 9 10 [SEP]   12 13 [SEP]   [CLS]
    backward             <eod> 16 15 14 13 12 11 10   9 8 [SEP]   7 6 5 [SEP]   [CLS]

Where ``bidirectional``, the rows of the running text are followed by those of the same text read
from its end to its beginning. Read as streams, half of them thus read backward; one that goes from
a shard's forward rows to its backward ones, or into the next shard, brings along the memory of
other text, as at the beginning of an epoch.

Deviations from the reference: there a batch is dealt to a fixed number of streams when the rows
are made, half of them backward; here rows only follow each other, and whoever reads them makes
streams of them. The random place is one of the shard's running text, there of the stream's. A text
shorter than a row gives none; what is behind the last A's beginning counts as left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pydantic
from numpy.typing import NDArray

from configs.schema import config
from preprocessing.corruption.base import UNLABELLED
from preprocessing.draws import UInt64, integers, uniform
from preprocessing.layouts.base import Cut, Frame, Layout, Material, Spans, sequence_id
from preprocessing.layouts.pairs import excess
from preprocessing.storage import InputError
from preprocessing.tokens import TokenStore

_IS_RANDOM, _END, _PARTNER = 0, 1, 2  # a row's draws


@config
class XLNetConfig(Layout):
    """Reused text and two segments, one sequence a row.

    Attributes:
        bidirectional: half of the rows hold their text backward.
    """

    kind: Literal["xlnet"]
    random_probability: Annotated[float, pydantic.Field(ge=0.0, le=1.0)] = 0.5
    bidirectional: bool = True

    def reads_backward(self) -> bool:
        """Half of the rows, where ``bidirectional``."""
        return self.bidirectional

    def consecutive(self) -> bool:
        """Each row goes on behind the reused text of the one before it."""
        return True

    def cut(self, material: Material) -> Cut:
        """Sequences of exactly ``length`` tokens, specials included.

        Raises:
            InputError: the frame has no separator, or a row has no room for two segments.
        """
        if not material.frame.after_each:
            raise InputError("layout 'xlnet': its segments need separators; use frame 'sep_cls'")
        text = _Text.of(material.store, material.documents)
        rows = [self._rows(text, material, backward=False)]
        if self.bidirectional:
            rows.append(self._rows(text, material, backward=True))
        return _cut(text, rows, material.frame)

    def _rows(self, text: _Text, material: Material, *, backward: bool) -> _Rows:
        """The rows of a text in one direction; all places are counted in that direction."""
        reused = material.length // 2
        most = material.room(2) - reused
        if most < 2:
            raise InputError(
                f"layout 'xlnet': no room for two segments in {material.length} tokens"
            )
        count = max(0, (text.size - most) // reused)
        begins = reused * np.arange(1, count + 1)  # of A
        ids = text.ids(begins - reused, backward=backward)
        keys = material.keys("xlnet", ids)

        bounds = text.backward_bounds if backward else text.bounds
        low = np.searchsorted(bounds, begins, side="right")
        high = np.searchsorted(bounds, begins + most)  # the first end that the row does not hold
        alone = low == high
        chosen = low + integers(keys, 0, _END, high - low)
        first_ends = bounds[np.where(alone, high, chosen)]
        random = alone | (uniform(keys, 0, _IS_RANDOM) < self.random_probability)
        wanted = np.maximum(1, most - (first_ends - begins))
        partners = integers(keys, 0, _PARTNER, text.size - wanted)
        other_begins = bounds[np.searchsorted(bounds, partners, side="right") - 1]
        other_ends = bounds[np.searchsorted(bounds, partners + wanted)]
        second_begins = np.where(random, other_begins, first_ends)
        second_ends = np.where(random, other_ends, bounds[high])
        lost = excess(first_ends - begins, second_ends - second_begins, most)
        return _Rows(
            ids,
            np.stack([begins - reused, begins, second_begins], axis=1),
            np.stack([begins, first_ends - lost[0], second_ends - lost[1]], axis=1),
            backward,
        )


@dataclass(frozen=True)
class _Rows:
    """Rows of one direction: ids, and from where to where their three parts go, ``[rows, 3]``."""

    ids: UInt64
    begins: NDArray[np.int64]
    ends: NDArray[np.int64]
    backward: bool


@dataclass(frozen=True)
class _Text:
    """Documents laid end to end, each with its end behind it.

    Attributes:
        first: number of the first document.
        starts: the place of each document's first token, and the end, ``[documents + 1]``.
        bounds: where sentences begin, and the last one ends, ``[sentences + 1]``; a document's end
            belongs to its last sentence.
    """

    first: int
    starts: NDArray[np.int64]
    bounds: NDArray[np.int64]

    @staticmethod
    def of(store: TokenStore, documents: range) -> _Text:
        lengths = []
        for document in documents:
            own = store.sentence_lengths(document).astype(np.int64)
            lengths.append(np.append(own[:-1], own[-1:].sum() + 1))
        sizes = np.array([own.sum() for own in lengths], dtype=np.int64)
        sentences = np.concatenate([np.zeros(1, dtype=np.int64), *lengths])
        return _Text(
            documents.start,
            np.concatenate([[0], np.cumsum(sizes)]),
            np.unique(np.cumsum(sentences)),
        )

    @property
    def size(self) -> int:
        """Tokens, ends of documents included."""
        return int(self.starts[-1])

    @property
    def backward_bounds(self) -> NDArray[np.int64]:
        """The same bounds, counted from the end."""
        return self.size - self.bounds[::-1]

    def ids(self, begins: NDArray[np.int64], *, backward: bool) -> UInt64:
        """Ids of rows that begin at these places, in a direction; odd where it is backward."""
        places = self.size - 1 - begins if backward else begins
        owners = np.searchsorted(self.starts, places, side="right") - 1
        rising = -owners if backward else owners
        index = np.arange(len(begins)) - np.searchsorted(rising, rising)
        return np.array(
            [
                sequence_id(document, 2 * turn + backward)
                for document, turn in zip(
                    (self.first + owners).tolist(), index.tolist(), strict=True
                )
            ],
            dtype=np.uint64,
        )

    def pieces(self, rows: _Rows) -> tuple[Spans, NDArray[np.int64]]:
        """The parts of rows as pieces of documents, and how many each part has, ``[rows * 3]``."""
        begins, ends = rows.begins.reshape(-1), rows.ends.reshape(-1)
        if rows.backward:
            begins, ends = self.size - ends, self.size - begins
        first = np.searchsorted(self.starts, begins, side="right") - 1
        last = np.searchsorted(self.starts, ends)
        counts = last - first
        part = np.repeat(np.arange(len(counts)), counts)
        turn = np.arange(len(part)) - np.repeat(np.cumsum(counts) - counts, counts)
        owners = (last - 1)[part] - turn if rows.backward else first[part] + turn
        starts = np.maximum(begins[part], self.starts[owners])
        stops = np.minimum(ends[part], self.starts[owners + 1])
        shift = self.starts[owners]
        return Spans(self.first + owners, starts - shift, stops - shift), counts


def _cut(text: _Text, directions: Sequence[_Rows], frame: Frame) -> Cut:
    """Put the rows of both directions together."""
    pieces, counts = zip(*(text.pieces(rows) for rows in directions), strict=True)
    parts = np.concatenate(counts).reshape(-1, 3)
    closed = np.zeros(int(parts.sum()), dtype=np.bool_)
    ends = np.cumsum(parts).reshape(-1, 3)
    closed[ends[:, 1:].reshape(-1) - 1] = True
    sizes = [len(rows.ids) for rows in directions]
    reused_and_first = parts[:, :2].sum(axis=1)
    return Cut(
        ids=np.concatenate([rows.ids for rows in directions]),
        pieces=Spans(
            *(
                np.concatenate([getattr(own, name) for own in pieces])
                for name in ("documents", "starts", "stops")
            )
        ),
        offsets=np.concatenate([[0], np.cumsum(parts.sum(axis=1))]),
        first_pieces=reused_and_first,
        labels=np.full(sum(sizes), UNLABELLED, dtype=np.int64),
        frame=frame,
        closed=closed,
        left_out=text.size - int(max(rows.begins[:, 1].max(initial=0) for rows in directions)),
        backward=np.repeat([rows.backward for rows in directions], sizes),
    )
