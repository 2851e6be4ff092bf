"""What the sentencepiece library does, compiled: normal forms, its Viterbi search and its BPE.

Text is an array of codes of characters; pieces are looked up in a double array, whose first
``alphabet`` codes are those of the characters that stand in pieces. The searches fill
``back[place] = (begin, node)`` of the last piece of the best way to each place; the node is 0 for a
character that is no piece.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, float32, float64, int32, int64, types, uint8, uint32

from preprocessing.compiled import BYTES, compiled

LOWEST_SUM = np.float32(-1e5)
"""Below this the library counts anew from 0, at whatever character it is."""
SPACE_POINT = 0x2581
_TRIE = (int32[:, ::1], int32[:], float32[:], int64)


@compiled((BYTES, int64))
def character(data, place):  # type: ignore[no-untyped-def]
    """The code point at a place, and its width in bytes."""
    first = np.int64(data[place])
    if first < 0x80:
        return first, 1
    second = np.int64(data[place + 1]) & 0x3F
    if first < 0xE0:
        return (first & 0x1F) << 6 | second, 2
    third = np.int64(data[place + 2]) & 0x3F
    if first < 0xF0:
        return (first & 0x0F) << 12 | second << 6 | third, 3
    return (first & 0x07) << 18 | second << 12 | third << 6 | np.int64(data[place + 3]) & 0x3F, 4


@compiled(int64(BYTES, int64, int64, boolean, int32[::1], int32[::1], int32[::1], int32[::1]))
def simple_form(data, begin, stop, continues, forms, codes, text, origins):  # type: ignore[no-untyped-def]
    """Write the normal form of a chunk of which every character becomes one; its size."""
    size = 0
    if not continues:
        text[0] = codes[SPACE_POINT]
        origins[0] = 0
        size = 1
    place = begin
    while place < stop:
        point, width = np.int64(data[place]), 1
        if point >= 0x80:
            point, width = character(data, place)
        text[size] = forms[point]
        origins[size] = place - begin
        size += 1
        place += width
    return size


@compiled((uint32[::1], BYTES, int64, int64))
def _longest_rule(units, data, begin, stop):  # type: ignore[no-untyped-def]
    """Where the normal form of the longest rule that fits here stands, and the bytes it replaces.

    (-1, 0) where none fits. ``units`` are those of Darts-clone: a label in bits 0 to 7 and 31, bit
    8 for a leaf among the children, bit 9 for an offset in units of 256, and the offset above.
    """
    unit = np.int64(units[0])
    node = (unit >> 10) << ((unit & 0x200) >> 6)
    target, size = np.int64(-1), np.int64(0)
    for place in range(begin, stop):
        byte = np.int64(data[place])
        node ^= byte
        unit = np.int64(units[node])
        if unit & 0x800000FF != byte:
            break
        node ^= (unit >> 10) << ((unit & 0x200) >> 6)
        if unit & 0x100:
            target, size = np.int64(units[node]) & 0x7FFFFFFF, place + 1 - begin
    return target, size


@compiled(
    int64(
        BYTES, int64, int64, boolean, int32[::1], uint32[::1], uint8[::1], int32[::1], int32[::1]
    )
)  # fmt: skip
def normal_form(data, begin, stop, continues, codes, units, targets, text, origins):  # type: ignore[no-untyped-def]
    """Write the normal form of any chunk; its size, or -1 if it has no room.

    White space is written when something follows it, and then once.
    """
    size = 0
    spaced = not continues
    place = begin
    while place < stop:
        target, replaced = _longest_rule(units, data, place, stop)
        point, width = character(data, place)
        if target < 0:
            replaced = width
        more = target < 0 or targets[target] != 0
        while more:
            if target >= 0:
                point, width = character(targets, target)
                target += width
            if point == ord(" "):
                spaced = True
            else:
                if size + 3 > len(text):  # the end is a place too
                    return -1
                if spaced:
                    text[size] = codes[SPACE_POINT]
                    origins[size] = place - begin
                    size += 1
                    spaced = False
                text[size] = codes[point]
                origins[size] = place - begin
                size += 1
            more = target >= 0 and targets[target] != 0
        place += replaced
    return size


@compiled(float64(int32[::1], int64, *_TRIE, float32, float64[:, ::1], int32[:, ::1]))
def best_two(  # type: ignore[no-untyped-def]
    text, size, cells, node_ids, node_scores, alphabet, unknown_score, best, back
):
    """The likeliest segmentation in 64-bit floats; by how much it beats the second likeliest.

    The second likeliest joins it at some place for good. So it is the best of those that come to
    one of its places with another piece than it, and go on with it: ``best[place]`` holds the best
    and the second best way to come to a place.
    """
    for place in range(size + 1):
        best[place, 0] = -np.inf
        best[place, 1] = -np.inf
    best[0, 0] = 0.0
    for start in range(size):
        here = best[start, 0]
        node = np.int64(text[start]) if text[start] < alphabet else np.int64(0)
        place = start + 1
        score = np.float64(unknown_score)
        piece = np.int64(0)
        if node_ids[node] >= 0:
            score = np.float64(node_scores[node])
            piece = node
        while True:
            if piece >= 0:
                candidate = here + score
                if candidate > best[place, 0]:
                    best[place, 1] = best[place, 0]
                    best[place, 0] = candidate
                    back[place, 0] = start
                    back[place, 1] = piece
                elif candidate > best[place, 1]:
                    best[place, 1] = candidate
            if node == 0 or place == size or text[place] >= alphabet:
                break
            child = np.int64(cells[node, 0]) + text[place]
            if cells[child, 1] != node:
                break
            node = child
            place += 1
            piece = node if node_ids[node] >= 0 else np.int64(-1)
            score = np.float64(node_scores[node])
    lead = np.inf
    place = size
    while place > 0:
        lead = min(lead, best[place, 0] - best[place, 1])
        place = int(back[place, 0])
    return lead


@compiled(types.void(int32[::1], int64, *_TRIE, float32, float32, float32[::1], int32[:, ::1]))
def library_viterbi(  # type: ignore[no-untyped-def]
    text, size, cells, node_ids, node_scores, alphabet, unknown_score, before, best, back
):
    """The library's search to the last bit: 32-bit sums from the score of all that went before.

    Of equal sums the first found stays: the one whose last piece is the longest. Where the best sum
    at a character is below ``LOWEST_SUM``, it is taken from all sums that lie ahead.
    """
    best[0] = before
    farthest = 0
    for start in range(size):
        here = best[start]
        if here < LOWEST_SUM:
            for place in range(start, farthest + 1):
                best[place] = np.float32(best[place] - here)
            here = np.float32(0.0)
        node = np.int64(text[start]) if text[start] < alphabet else np.int64(0)
        place = start + 1
        score = unknown_score
        piece = np.int64(0)
        if node_ids[node] >= 0:
            score = node_scores[node]
            piece = node
        while True:
            if piece >= 0:
                candidate = np.float32(score + here)
                if place > farthest:
                    for between in range(farthest + 1, place):
                        best[between] = -np.inf
                    farthest = place
                    best[place] = -np.inf
                if candidate > best[place]:
                    best[place] = candidate
                    back[place, 0] = start
                    back[place, 1] = piece
            if node == 0 or place == size or text[place] >= alphabet:
                break
            child = np.int64(cells[node, 0]) + text[place]
            if cells[child, 1] != node:
                break
            node = child
            place += 1
            piece = node if node_ids[node] >= 0 else np.int64(-1)
            score = node_scores[node]


@compiled(int64(int32[::1], int32[:, ::1], int32[:], int64, int64[:, ::1], int64))
def _joined(text, cells, node_ids, alphabet, symbols, i):  # type: ignore[no-untyped-def]
    """The node of a symbol together with its right neighbour, 0 where that is no piece."""
    node = symbols[i, 1]
    place = symbols[i + 1, 0]
    if node == 0:
        return 0
    while place < symbols[i + 2, 0]:
        if text[place] >= alphabet:
            return 0
        child = np.int64(cells[node, 0]) + text[place]
        if cells[child, 1] != node:
            return 0
        node = child
        place += 1
    return node if node_ids[node] >= 0 else 0


@compiled(
    types.void(
        int32[::1], int64, *_TRIE, int64[:, ::1], int32[:, ::1],
    )
)  # fmt: skip
def merge(text, size, cells, node_ids, node_scores, alphabet, symbols, back):  # type: ignore[no-untyped-def]
    """BPE: of the neighbours that make a piece, the best-scored are joined, the leftmost of equal
    ones, until none make one.

    ``symbols`` is scratch: begin, trie node, and node of a symbol joined with its right neighbour.
    """
    count = size
    for place in range(size):
        symbols[place, 0] = place
        symbols[place, 1] = text[place] if text[place] < alphabet else 0
    symbols[size, 0] = size
    for i in range(count - 1):
        symbols[i, 2] = _joined(text, cells, node_ids, alphabet, symbols, i)
    while True:
        chosen = -1
        for i in range(count - 1):
            node = symbols[i, 2]
            if node and (chosen < 0 or node_scores[node] > node_scores[symbols[chosen, 2]]):
                chosen = i
        if chosen < 0:
            break
        symbols[chosen, 1] = symbols[chosen, 2]
        for i in range(chosen + 1, count):
            symbols[i, 0] = symbols[i + 1, 0]
            symbols[i, 1] = symbols[i + 1, 1]
            symbols[i, 2] = symbols[i + 1, 2]
        count -= 1
        for i in range(max(chosen - 1, 0), min(chosen + 1, count - 1)):
            symbols[i, 2] = _joined(text, cells, node_ids, alphabet, symbols, i)
    for i in range(count):
        node = symbols[i, 1]
        stop = symbols[i + 1, 0]
        back[stop, 0] = symbols[i, 0]
        back[stop, 1] = node if node_ids[node] >= 0 else 0
