"""Byte-level BPE as GPT-2 uses it: chunks are its pre-tokens, merged by compiled code.

Byte pair encoding (Sennrich et al. 2016, arXiv:1508.07909) joins, as long as any can be joined,
the two neighbouring pieces that were joined first in training, the leftmost of equals. It never
looks beyond the pre-token. The library keeps the pairs in a heap by (rank, place); an entry whose
pieces are gone is passed over, so the next valid one is the leftmost of lowest rank, which is
looked for directly here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import boolean, int32, int64, uint8, uint32, uint64
from numpy.typing import NDArray
from tokenizers import Tokenizer

from preprocessing.compiled import BYTES, compiled
from preprocessing.texts import Texts
from preprocessing.tokenization.dictionary import Pool
from preprocessing.tokenization.gpt2_cuts import SPACE, UNSURE, character_classes, cut

LONGEST = 256
"""Bytes; longer pre-tokens are the reference's, whose time does not grow with their square."""

NEVER = np.uint64(0x7FFFFFFF00000000)
"""The rank of a pair that is not merged."""


def byte_alphabet() -> list[str]:
    """The character that stands for each byte: itself where it is visible, else one from U+0100."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in visible else next(others)) for byte in range(256)]


class ByteLevelPipeline:
    """GPT-2's tokenizer; :mod:`.choice` has looked at its configuration.

    Args:
        tokenizer: with a BPE model and GPT-2's pre-tokenizer.
        plain: its configuration, as in ``tokenizer.json``.
    """

    def __init__(self, tokenizer: Tokenizer, plain: Mapping[str, Any]) -> None:
        vocabulary: Mapping[str, int] = plain["model"]["vocab"]
        pairs = [
            pair if isinstance(pair, list) else pair.split(" ") for pair in plain["model"]["merges"]
        ]
        self._classes = character_classes(tokenizer.pre_tokenizer)
        self._of_byte = np.array([vocabulary[piece] for piece in byte_alphabet()], np.int64)
        parts = np.array(
            [(vocabulary[a], vocabulary[b], vocabulary[a + b]) for a, b in pairs], np.int64
        ).reshape(-1, 3)
        self._merges = np.zeros((1 << (2 * len(pairs) | 1).bit_length(), 2), np.uint64)
        _fill(parts, self._merges)

    def cut(
        self,
        texts: Texts,
        state: NDArray[np.int64],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int32],
        hashes: NDArray[np.uint64],
    ) -> int:
        """The pre-tokens of the texts."""
        return int(cut(texts.data, texts.offsets, self._classes, state, starts, lengths, hashes))

    def encode(
        self,
        data: NDArray[np.uint8],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int32],
        pool: Pool,
        counts: NDArray[np.int32],
    ) -> None:
        """Merge; what is long, or not surely one pre-token, is left over."""
        pool.used = _encode(
            data, starts, lengths, counts, self._classes, self._of_byte, self._merges,
            pool.ids, pool.starts_word, pool.begins, pool.stops, pool.used,
        )  # fmt: skip


@compiled(uint64(uint64))
def _mix(pair):  # type: ignore[no-untyped-def]
    pair *= np.uint64(0x9E3779B97F4A7C15)
    return pair ^ pair >> np.uint64(32)


@compiled((int64[:, ::1], uint64[:, ::1]))
def _fill(parts, merges):  # type: ignore[no-untyped-def]
    """A slot: the pair's ids plus one, so that 0 is empty; its rank above the joined piece.

    Of equal pairs the last counts, as in the library.
    """
    mask = np.uint64(len(merges) - 1)
    for rank in range(len(parts)):
        pair = np.uint64(parts[rank, 0]) << np.uint64(32) | np.uint64(parts[rank, 1])
        key = pair + np.uint64(1)
        slot = _mix(key) & mask
        while merges[slot, 0] != 0 and merges[slot, 0] != key:
            slot = (slot + np.uint64(1)) & mask
        merges[slot, 0] = key
        merges[slot, 1] = np.uint64(rank) << np.uint64(32) | np.uint64(parts[rank, 2])


@compiled(uint64(uint64[:, ::1], int32, int32))
def _find(merges, left, right):  # type: ignore[no-untyped-def]
    """Rank and joined piece of a pair; ``NEVER`` where it is not merged."""
    mask = np.uint64(len(merges) - 1)
    key = (np.uint64(left) << np.uint64(32) | np.uint64(right)) + np.uint64(1)
    slot = _mix(key) & mask
    while merges[slot, 0] != 0:
        if merges[slot, 0] == key:
            return merges[slot, 1]
        slot = (slot + np.uint64(1)) & mask
    return NEVER


@compiled(int64(BYTES, int64, uint8[::1]))
def _class(data, place, classes):  # type: ignore[no-untyped-def]
    byte = np.int64(data[place])
    if byte < 0x80:
        point = byte
    elif byte < 0xE0:
        point = (byte & 0x1F) << 6 | np.int64(data[place + 1] & 0x3F)
    else:
        point = np.int64(data[place + 1] & 0x3F) << 6 | np.int64(data[place + 2] & 0x3F)
        if byte < 0xF0:
            point |= (byte & 0x0F) << 12
        else:
            point = (byte & 0x07) << 18 | point << 6 | np.int64(data[place + 3] & 0x3F)
    return np.int64(classes[point]) if point < len(classes) else UNSURE


@compiled(boolean(BYTES, int64, int64, uint8[::1]))
def _is_sure(data, place, stop, classes):  # type: ignore[no-untyped-def]
    """Whether every character's class is known: then the chunk is one match."""
    while place < stop:
        if data[place] & 0xC0 != 0x80 and _class(data, place, classes) == UNSURE:
            return False
        place += 1
    return True


@compiled(
    int64(BYTES, int64[::1], int32[::1], int32[::1], uint8[::1], int64[::1],
          uint64[:, ::1],
          uint32[::1], boolean[::1], int32[::1], int32[::1], int64)
)  # fmt: skip
def _encode(  # type: ignore[no-untyped-def]
    data, starts, lengths, counts, classes, of_byte, merges,
    ids, starts_word, begins, stops, used
):  # fmt: skip
    pieces = np.empty(LONGEST, np.int32)
    places = np.empty(LONGEST, np.int32)
    ranks = np.empty(LONGEST, np.int32)  # of the pair that a piece begins
    joined = np.empty(LONGEST, np.int32)  # what that pair becomes
    never = np.int32(NEVER >> np.uint64(32))
    for i in range(len(starts)):
        start, length = starts[i], lengths[i]
        if length > LONGEST or not _is_sure(data, start, start + length, classes):
            counts[i] = -1
            continue
        count = int(length)
        for k in range(count):
            pieces[k] = of_byte[data[start + k]]
            places[k] = k
        for k in range(count - 1):
            merge = _find(merges, pieces[k], pieces[k + 1])
            ranks[k] = merge >> np.uint64(32)
            joined[k] = merge & np.uint64(0xFFFFFFFF)
        while count > 1:
            lowest = never
            for k in range(count - 1):
                lowest = min(lowest, ranks[k])
            if lowest == never:
                break
            best = 0
            while ranks[best] != lowest:
                best += 1
            pieces[best] = joined[best]
            count -= 1
            for k in range(best + 1, count):
                pieces[k] = pieces[k + 1]
                places[k] = places[k + 1]
                ranks[k] = ranks[k + 1]
                joined[k] = joined[k + 1]
            for k in range(max(0, best - 1), min(best + 1, count - 1)):
                merge = _find(merges, pieces[k], pieces[k + 1])
                ranks[k] = merge >> np.uint64(32)
                joined[k] = merge & np.uint64(0xFFFFFFFF)
        for k in range(count):
            ids[used + k] = pieces[k]
            starts_word[used + k] = k == 0
            begins[used + k] = places[k]
            stops[used + k] = places[k + 1] if k + 1 < count else length
        if data[start] == 32 and stops[used] > 1 and _class(data, start + 1, classes) != SPACE:
            begins[used] = 1
        used += count
        counts[i] = count
    return used
