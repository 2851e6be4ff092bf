"""Cutting texts between characters by a table of their kinds."""

from __future__ import annotations

import numpy as np
from numba import int32, int64, uint8, uint64

from preprocessing.compiled import BYTES, PLACES, compiled
from preprocessing.tokenization.dictionary import TEXT_END

NUM_POINTS = 0x323B0
"""Tables of characters end here: above lie only tags, variation selectors and private use."""

WORD, SPACE, ALONE = range(3)
"""Kinds: a run of the first is a chunk, the second is left out, the third is a chunk by itself."""


@compiled(int64(BYTES, PLACES, uint8[::1], int64[::1], int64[::1], int32[::1], uint64[::1]))
def cut(  # type: ignore[no-untyped-def]
    data, offsets, kinds, state, starts, lengths, hashes
):
    """The next chunks; see :class:`preprocessing.tokenization.chunks.Pipeline`."""
    text, place = state[0], state[1]
    num_texts = len(offsets) - 1
    most = len(starts)
    count = 0
    seed, prime = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
    stop = offsets[text + 1]
    while count < most:
        start = place
        value = seed
        while place < stop:
            byte = data[place]
            if byte < 0x80:
                width = 1
                kind = kinds[byte]
            else:
                if byte < 0xE0:
                    width = 2
                    point = (byte & 0x1F) << 6 | data[place + 1] & 0x3F
                elif byte < 0xF0:
                    width = 3
                    point = (
                        (byte & 0x0F) << 12 | (data[place + 1] & 0x3F) << 6 | data[place + 2] & 0x3F
                    )
                else:
                    width = 4
                    point = (
                        (byte & 0x07) << 18
                        | (data[place + 1] & 0x3F) << 12
                        | (data[place + 2] & 0x3F) << 6
                        | data[place + 3] & 0x3F
                    )
                kind = kinds[point] if point < NUM_POINTS else WORD
            if kind != WORD and place > start:
                break
            if kind == SPACE:
                place += width
                start = place
                continue
            for k in range(place, place + width):
                value = (value ^ np.uint64(data[k])) * prime
            place += width
            if kind == ALONE:
                break
        if place > start:
            value ^= value >> np.uint64(29)
            value *= np.uint64(0xBF58476D1CE4E5B9)
            value ^= value >> np.uint64(32)
            starts[count] = start
            lengths[count] = place - start
            hashes[count] = value
        else:
            starts[count] = stop
            lengths[count] = TEXT_END
            text += 1
            if text == num_texts:
                count += 1
                break
            place = offsets[text]
            stop = offsets[text + 1]
        count += 1
    state[0], state[1] = text, place
    return count
