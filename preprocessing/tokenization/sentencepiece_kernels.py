"""The two segmentations of the sentencepiece library, compiled: its Viterbi search and its BPE.

Text is an array of code points. Pieces are looked up in a trie: the children of its root are a
table by code point, all other edges stand in one hash table, where a slot holds node, code point
and child in 22, 21 and 21 bits.
"""

from __future__ import annotations

import numpy as np
from numba import float32, float64, int32, int64, types, uint64
from numpy.typing import NDArray

from preprocessing.compiled import compiled
from preprocessing.tokenization.sentencepiece_model import CODE_POINTS

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_CHILD_BITS = np.uint64(21)
_CHILD = np.uint64((1 << 21) - 1)
LOWEST_SUM = np.float32(-1e5)
"""Below this the library counts anew from 0, at whatever character it is."""


def build_trie(
    points: NDArray[np.int32], offsets: NDArray[np.int64], ids: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.uint64], NDArray[np.int32]]:
    """The trie of some pieces.

    Args:
        points: code points of all pieces.
        offsets: ``[pieces + 1]``, where each begins.
        ids: ``[pieces]``.

    Returns:
        The root's children by code point (0 for none), the other edges, and by node the id of the
        piece that ends there (-1 for none).
    """
    assert len(points) < 1 << 21, "more nodes than fit into 21 bits"
    roots = np.zeros(CODE_POINTS, np.int32)
    edges = np.zeros(1 << (2 * len(points) + 2).bit_length(), np.uint64)
    node_ids = np.full(len(points) + 1, -1, np.int32)
    used = _insert(points, offsets, ids, roots, edges, node_ids)
    return roots, edges, node_ids[:used].copy()


@compiled(int64(uint64[::1], int64, int64))
def _slot(edges, node, point):  # type: ignore[no-untyped-def]
    """The slot of an edge, or the empty one that it would take."""
    mask = np.uint64(len(edges) - 1)
    key = np.uint64(node << 21 | point)
    slot = (key * _GOLDEN) >> np.uint64(24) & mask
    while edges[slot] != 0 and edges[slot] >> _CHILD_BITS != key:
        slot = (slot + np.uint64(1)) & mask
    return np.int64(slot)


@compiled(int64(int32[::1], int64[::1], int32[::1], int32[::1], uint64[::1], int32[::1]))
def _insert(points, offsets, ids, roots, edges, node_ids):  # type: ignore[no-untyped-def]
    used = 1  # 0 is no node
    for piece in range(len(ids)):
        first = points[offsets[piece]]
        if roots[first] == 0:
            roots[first] = used
            used += 1
        node = np.int64(roots[first])
        for place in range(offsets[piece] + 1, offsets[piece + 1]):
            point = np.int64(points[place])
            slot = _slot(edges, node, point)
            if edges[slot] == 0:
                edges[slot] = np.uint64(node << 21 | point) << _CHILD_BITS | np.uint64(used)
                used += 1
            node = np.int64(edges[slot] & _CHILD)
        node_ids[node] = ids[piece]
    return used


@compiled(
    float64(
        int32[::1], int64, int32[::1], uint64[::1], int32[::1], float32[::1], int32, float32,
        float64[:, ::1], int32[:, ::1],
    )
)  # fmt: skip
def best_two(  # type: ignore[no-untyped-def]
    text, size, roots, edges, node_ids, scores, unknown, unknown_score, best, back
):
    """The likeliest segmentation in 64-bit floats, and by how much it beats the second likeliest.

    Fills ``back[place] = (begin, id)`` of the last piece of the best way to each place; returns
    the lead.
    """
    best[: size + 1] = -np.inf
    best[0, 0] = 0.0
    for start in range(size):
        single = False
        node = np.int64(roots[text[start]])
        place = start
        while node:
            place += 1
            index = node_ids[node]
            if index >= 0:
                single |= place == start + 1
                score = np.float64(scores[index])
                first, second = best[start, 0] + score, best[start, 1] + score
                if first > best[place, 0]:
                    second = max(second, best[place, 0])
                    best[place, 0] = first
                    back[place, 0] = start
                    back[place, 1] = index
                else:
                    second = max(first, second)
                best[place, 1] = max(second, best[place, 1])
            if place == size:
                break
            node = np.int64(edges[_slot(edges, node, np.int64(text[place]))] & _CHILD)
        if not single:
            place = start + 1
            score = np.float64(unknown_score)
            first, second = best[start, 0] + score, best[start, 1] + score
            if first > best[place, 0]:
                second = max(second, best[place, 0])
                best[place, 0] = first
                back[place, 0] = start
                back[place, 1] = unknown
            else:
                second = max(first, second)
            best[place, 1] = max(second, best[place, 1])
    return best[size, 0] - best[size, 1]


@compiled(
    types.void(
        int32[::1], int64, int32[::1], uint64[::1], int32[::1], float32[::1], int32, float32,
        float32,
        float32[::1], int32[:, ::1],
    )
)  # fmt: skip
def library_viterbi(  # type: ignore[no-untyped-def]
    text, size, roots, edges, node_ids, scores, unknown, unknown_score, before, best, back
):
    """The library's search to the last bit: 32-bit sums from the score of all that went before.

    Of equal sums the first found stays: the one whose last piece is the longest. Where the best sum
    at a character is below ``LOWEST_SUM``, it is taken from all sums that lie ahead.
    """
    back[: size + 1, 0] = -1
    best[0] = before
    farthest = 0
    for start in range(size):
        if best[start] < LOWEST_SUM:
            lowest = best[start]
            for place in range(start, farthest + 1):
                best[place] = np.float32(best[place] - lowest)
        single = False
        node = np.int64(roots[text[start]])
        place = start
        while node:
            place += 1
            index = node_ids[node]
            if index >= 0:
                single |= place == start + 1
                candidate = np.float32(scores[index] + best[start])
                if back[place, 0] < 0 or candidate > best[place]:
                    best[place] = candidate
                    back[place, 0] = start
                    back[place, 1] = index
                    farthest = max(farthest, place)
            if place == size:
                break
            node = np.int64(edges[_slot(edges, node, np.int64(text[place]))] & _CHILD)
        if not single:
            place = start + 1
            candidate = np.float32(unknown_score + best[start])
            if back[place, 0] < 0 or candidate > best[place]:
                best[place] = candidate
                back[place, 0] = start
                back[place, 1] = unknown
                farthest = max(farthest, place)


@compiled(int64(int32[::1], uint64[::1], int32[::1], int64[:, ::1], int64))
def _joined(text, edges, node_ids, symbols, i):  # type: ignore[no-untyped-def]
    """The node of a symbol together with its right neighbour, 0 where that is no piece."""
    node = symbols[i, 1]
    place = symbols[i + 1, 0]
    while node and place < symbols[i + 2, 0]:
        node = np.int64(edges[_slot(edges, node, np.int64(text[place]))] & _CHILD)
        place += 1
    return node if node and node_ids[node] >= 0 else 0


@compiled(
    types.void(
        int32[::1], int64, int32[::1], uint64[::1], int32[::1], float32[::1], int32,
        int64[:, ::1], int32[:, ::1],
    )
)  # fmt: skip
def merge(text, size, roots, edges, node_ids, scores, unknown, symbols, back):  # type: ignore[no-untyped-def]
    """BPE: of the neighbours that make a piece, the best-scored are joined, the leftmost of equal
    ones, until none make one. Fills ``back`` as :func:`best_two` does.

    ``symbols`` is scratch: begin, trie node, and node of a symbol joined with its right neighbour.
    """
    count = size
    for place in range(size):
        symbols[place, 0] = place
        symbols[place, 1] = roots[text[place]]
    symbols[size, 0] = size
    for i in range(count - 1):
        symbols[i, 2] = _joined(text, edges, node_ids, symbols, i)
    while True:
        chosen = -1
        for i in range(count - 1):
            node = symbols[i, 2]
            if node and (
                chosen < 0 or scores[node_ids[node]] > scores[node_ids[symbols[chosen, 2]]]
            ):
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
            symbols[i, 2] = _joined(text, edges, node_ids, symbols, i)
    for i in range(count):
        node = symbols[i, 1]
        stop = symbols[i + 1, 0]
        back[stop, 0] = symbols[i, 0]
        back[stop, 1] = node_ids[node] if node and node_ids[node] >= 0 else unknown
