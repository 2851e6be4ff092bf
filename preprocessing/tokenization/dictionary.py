"""Chunks of text that have been encoded before: a bounded hash table of their bytes.

The table is exact: the hash leads to a slot, the bytes decide. It is filled up to a limit, then
emptied and begun anew, so its memory is fixed from the start and what it returns never depends on
what it holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import int32, int64, uint8, uint64
from numpy.typing import NDArray

from preprocessing.compiled import BYTES, compiled

LONGEST_KEY = 64
"""Bytes; longer chunks are encoded each time they occur."""
TEXT_END = -1
"""In place of a chunk's length: here a text ends."""

KEY, LENGTH, IDS, COUNT = range(4)  # columns of Dictionary.entries


@dataclass
class Pool:
    """The tokens of the chunks, one after the other.

    Attributes:
        ids: uint32.
        starts_word: bool.
        begins: int32, the byte of its chunk that a token begins at.
        stops: int32, the byte it ends before.
        used: how much of each is in use.
    """

    ids: NDArray[np.uint32]
    starts_word: NDArray[np.bool_]
    begins: NDArray[np.int32]
    stops: NDArray[np.int32]
    used: int = 0

    @staticmethod
    def of(size: int) -> Pool:
        """Room for so many tokens."""
        places = (np.zeros(size, np.int32), np.zeros(size, np.int32))
        return Pool(np.zeros(size, np.uint32), np.zeros(size, np.bool_), *places)

    def reserve(self, count: int) -> None:
        """Make room for so many more tokens."""
        missing = self.used + count - len(self.ids)
        if missing > 0:
            more = Pool.of(max(missing, len(self.ids)))
            self.ids = np.concatenate([self.ids, more.ids])
            self.starts_word = np.concatenate([self.starts_word, more.starts_word])
            self.begins = np.concatenate([self.begins, more.begins])
            self.stops = np.concatenate([self.stops, more.stops])


class Dictionary:
    """Chunks by their bytes, and the tokens of each.

    Args:
        limit: chunks that are remembered. At the default of 2**17 the whole takes 13 MB: English
            prose reaches it after some 30 MB of text.
    """

    def __init__(self, limit: int = 2**17) -> None:
        self._limit = limit
        self._slots = np.zeros(max(16, 1 << (2 * limit - 1).bit_length()), np.uint64)
        self._keys = np.zeros(16 * limit + LONGEST_KEY, np.uint8)
        self._state = np.zeros(2, np.int64)  # entries, bytes of keys
        self.entries = np.zeros((limit, 4), np.int32)
        self._pool_size = 8 * limit
        self.pool = Pool.of(self._pool_size)

    def clear(self) -> None:
        """Forget everything."""
        self._slots[:] = 0
        self._state[:] = 0
        if len(self.pool.ids) > self._pool_size:  # a very long chunk went through
            self.pool = Pool.of(self._pool_size)
        self.pool.used = 0

    def look_up(
        self,
        data: NDArray[np.uint8],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int32],
        hashes: NDArray[np.uint64],
        found: NDArray[np.int32],
    ) -> tuple[int, NDArray[np.int32]]:
        """Find chunks, and make entries without tokens for those that are new.

        Args:
            data: where the chunks' bytes lie.
            starts, lengths, hashes: ``[chunks]``; the hash must depend on the bytes alone.
            found: ``[chunks]``, filled with entries; ``TEXT_END`` where the length says so.

        Returns:
            How many of the chunks were done before the dictionary was full; and the numbers of
            those among them whose entries are new.
        """
        new = np.empty(len(starts), np.int32)
        if self.pool.used >= self._pool_size:
            return 0, new[:0]
        done, num_new = _look_up(
            data, starts, lengths, hashes, found, new,
            self._slots, self._keys, self.entries, self._state,
        )  # fmt: skip
        return done, new[:num_new]


@compiled(
    (BYTES, int64[::1], int32[::1], uint64[::1], int32[::1], int32[::1],
     uint64[::1], uint8[::1], int32[:, ::1], int64[::1])
)  # fmt: skip
def _look_up(  # type: ignore[no-untyped-def]
    data, starts, lengths, hashes, found, new, slots, keys, entries, state
):
    """A slot holds the upper half of a hash above an entry's number plus one; 0 is empty."""
    mask = np.uint64(len(slots) - 1)
    upper = np.uint64(0xFFFFFFFF00000000)
    lower = np.uint64(0x00000000FFFFFFFF)
    num_entries, num_keys = state[0], state[1]
    num_new = 0
    done = len(starts)
    for i in range(len(starts)):
        length = lengths[i]
        if length == TEXT_END:
            found[i] = TEXT_END
            continue
        start = starts[i]
        entry = np.int64(-1)
        slot = np.uint64(0)
        if length <= LONGEST_KEY:
            tag = hashes[i] & upper
            slot = hashes[i] & mask
            while slots[slot] != 0:
                if slots[slot] & upper == tag:
                    candidate = np.int64((slots[slot] & lower) - np.uint64(1))
                    if entries[candidate, LENGTH] == length:
                        key = entries[candidate, KEY]
                        k = 0
                        while k < length and keys[key + k] == data[start + k]:
                            k += 1
                        if k == length:
                            entry = candidate
                            break
                slot = (slot + np.uint64(1)) & mask
        if entry < 0:
            if num_entries == len(entries) or num_keys + LONGEST_KEY > len(keys):
                done = i
                break
            entry = np.int64(num_entries)
            num_entries += 1
            entries[entry, KEY] = num_keys
            entries[entry, LENGTH] = length
            entries[entry, COUNT] = 0
            if length <= LONGEST_KEY:
                slots[slot] = tag | np.uint64(entry + 1)
                for k in range(length):
                    keys[num_keys + k] = data[start + k]
                num_keys += length
            new[num_new] = i
            num_new += 1
        found[i] = entry
    state[0], state[1] = num_entries, num_keys
    return done, num_new
