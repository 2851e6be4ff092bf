"""The common road of the fast encoders: cut texts into chunks, look them up, encode the new ones.

A *chunk* is a piece of text whose tokens do not depend on what stands around it. Each pipeline
says where it may cut and why; the rest is the same for all.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from preprocessing.texts import Texts
from preprocessing.tokenization.base import Encoded
from preprocessing.tokenization.dictionary import COUNT, IDS, Dictionary, Pool
from preprocessing.tokenization.gathering import Gathering
from preprocessing.tokenization.reference import Reference

_CHUNKS_AT_ONCE = 2**15


class Pipeline(Protocol):
    """What a kind of vocabulary must say of itself."""

    def cut(
        self,
        texts: Texts,
        state: NDArray[np.int64],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int32],
        hashes: NDArray[np.uint64],
    ) -> int:
        """Fill in the next chunks, the ends of texts among them, and return how many.

        Args:
            texts: the column.
            state: the text and the byte place to go on at, which are moved on; the work is done
                where the text is the number of texts.
            starts, lengths, hashes: ``[chunks]``; places in ``texts.data``, bytes, and any good
                hash of them; ``TEXT_END`` is the length of a text's end.
        """

    def encode(
        self,
        data: NDArray[np.uint8],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int32],
        pool: Pool,
        counts: NDArray[np.int32],
    ) -> None:
        """Append the tokens of some chunks to the pool, which has room for one a byte.

        Args:
            data: where the chunks' bytes lie.
            starts, lengths: ``[chunks]``.
            pool: takes the tokens, in order.
            counts: ``[chunks]``, filled with the number of tokens of each; -1, and no tokens,
                where the reference must say.
        """


class ChunkEncoder:
    """Encodes with a pipeline what it can encode, and the rest with the reference.

    Args:
        pipeline: where to cut and how to encode.
        reference: the library.
        id_type: of the ids.
        dictionary: of chunks seen before.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        reference: Reference,
        id_type: type[np.uint16] | type[np.uint32],
        dictionary: Dictionary | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._reference = reference
        self._id_type = id_type
        self.dictionary = dictionary or Dictionary()

    def encode(self, texts: Texts, marks: NDArray[np.int64]) -> Encoded:
        """As the :class:`~preprocessing.tokenization.base.Encoder` protocol says."""
        gathering = Gathering(len(texts), marks, self._id_type)
        state = np.array([0, texts.offsets[0]], np.int64)
        starts = np.empty(_CHUNKS_AT_ONCE, np.int64)
        lengths = np.empty(_CHUNKS_AT_ONCE, np.int32)
        hashes = np.empty(_CHUNKS_AT_ONCE, np.uint64)
        found = np.empty(_CHUNKS_AT_ONCE, np.int32)
        while state[0] < len(texts):
            count = self._pipeline.cut(texts, state, starts, lengths, hashes)
            first = 0
            while first < count:
                part = slice(first, count)
                done, new = self.dictionary.look_up(
                    texts.data, starts[part], lengths[part], hashes[part], found[part]
                )
                new = new + first
                part = slice(first, first + done)
                self._fill(texts, found[new], starts[new], lengths[new])
                gathering.add(self.dictionary, starts[part], found[part])
                first += done
                if first < count:
                    self.dictionary.clear()
        return gathering.finish()

    def _fill(
        self,
        texts: Texts,
        entries: NDArray[np.int32],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int32],
    ) -> None:
        """Give new entries their tokens."""
        if not len(entries):
            return
        pool = self.dictionary.pool
        pool.reserve(int(lengths.sum(dtype=np.int64)))
        counts = np.zeros(len(entries), np.int32)
        begin = pool.used
        self._pipeline.encode(texts.data, starts, lengths, pool, counts)
        own = np.maximum(counts, 0)
        self.dictionary.entries[entries, COUNT] = own
        self.dictionary.entries[entries, IDS] = begin + np.cumsum(own) - own
        (hard,) = np.nonzero(counts < 0)
        if len(hard):
            self._ask_reference(texts, entries[hard], starts[hard], lengths[hard])

    def _ask_reference(
        self,
        texts: Texts,
        entries: NDArray[np.int32],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int32],
    ) -> None:
        pool = self.dictionary.pool
        chunks = [
            bytes(texts.data[start : start + length])
            for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)
        ]
        for entry, tokens in zip(entries.tolist(), self._reference.tokens(chunks), strict=True):
            count = len(tokens.ids)
            pool.reserve(count)
            stop = pool.used + count
            pool.ids[pool.used : stop] = tokens.ids
            pool.starts_word[pool.used : stop] = tokens.starts_word
            pool.begins[pool.used : stop] = tokens.begins
            pool.stops[pool.used : stop] = tokens.stops
            self.dictionary.entries[entry, IDS] = pool.used
            self.dictionary.entries[entry, COUNT] = count
            pool.used = stop
