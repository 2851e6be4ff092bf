"""A model's pieces as a double array over characters.

A node is a cell. Its children lie at its base plus the codes of their characters, and say whose
they are, so that one step is one lookup (Aoe, 1989). The children of the root are the cells of
their codes themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import int32, int64
from numpy.typing import NDArray

from preprocessing.compiled import compiled
from preprocessing.tokenization.sentencepiece_model import CODE_POINTS, Pieces


@dataclass(frozen=True)
class DoubleArray:
    """Pieces by their characters.

    Attributes:
        codes: int32 ``[0x110000]``, of the characters: from 1 to ``size - 1`` for those that stand
            in pieces, the more frequent ones first; ``size`` and the code point for all others.
        letters: int32 ``[size]``, the characters of the codes.
        cells: int32 ``[cells, 4]``: of each node the base of its children, its parent, the id of
            the piece that ends there (-1 for none), and the bits of that one's score, a float32.
    """

    codes: NDArray[np.int32]
    letters: NDArray[np.int32]
    cells: NDArray[np.int32]

    @property
    def arrays(self) -> tuple[Any, ...]:
        """As the kernels take them: ids and scores by themselves, though they lie in the cells."""
        ids, scores = self.cells[:, 2], self.cells.view(np.float32)[:, 3]
        return self.codes, self.letters, self.cells, ids, scores


def double_array(pieces: Pieces) -> DoubleArray:
    """The double array of a model's pieces."""
    found, counts = np.unique(pieces.points, return_counts=True)
    size = len(found) + 1
    letters = np.zeros(size, np.int32)
    letters[1:] = found[np.argsort(-counts, kind="stable")]
    codes = np.arange(size, size + CODE_POINTS, dtype=np.int32)
    codes[letters[1:]] = np.arange(1, size, dtype=np.int32)
    lengths = np.diff(pieces.offsets)
    spelled = np.zeros((len(lengths), int(lengths.max(initial=1))), np.int32)
    spelled[np.arange(spelled.shape[1]) < lengths[:, None]] = codes[pieces.points]
    order = np.lexsort(spelled.T[::-1])
    room = 2 * len(pieces.points) + 2 * size + 1024
    while True:
        cells = np.full((room, 4), -1, np.int32)
        used = _place(spelled[order], lengths[order], pieces.ids[order], size, cells)
        if used:
            break
        room *= 2
    cells = cells[: used + size].copy()  # no step leads out of the array
    cells[:, 3] = pieces.scores[cells[:, 2]].view(np.int32)
    return DoubleArray(codes, letters, cells)


@compiled(int64(int32[:, ::1], int64[::1], int32[::1], int64, int32[:, ::1]))
def _place(spelled, lengths, piece_ids, size, cells):  # type: ignore[no-untyped-def]
    """Fill the cells level by level with sorted pieces; how many it took, 0 for too few."""
    room, count = len(cells), len(lengths)
    free = np.ones(room, np.bool_)
    free[:size] = False
    cells[:size, :2] = 0
    children = np.zeros(size, np.int64)
    nodes = np.zeros(count, np.int64)  # that the pieces have come to
    for piece in range(count):
        nodes[piece] = spelled[piece, 0]
        if lengths[piece] == 1:
            cells[nodes[piece], 2] = piece_ids[piece]
    lowest = used = size
    for depth in range(1, spelled.shape[1]):
        piece = 0
        while piece < count:
            if lengths[piece] <= depth:
                piece += 1
                continue
            node = nodes[piece]
            stop = piece
            num_children = 0
            while stop < count and nodes[stop] == node and lengths[stop] > depth:
                code = spelled[stop, depth]
                if num_children == 0 or children[num_children - 1] != code:
                    children[num_children] = code
                    num_children += 1
                stop += 1
            while lowest < room and not free[lowest]:
                lowest += 1
            base = max(lowest - children[0], 1)
            child = 0
            while child < num_children:
                if base + size >= room:
                    return 0
                if free[base + children[child]]:
                    child += 1
                else:
                    base += 1
                    child = 0
            cells[node, 0] = base
            for child in range(num_children):
                cell = base + children[child]
                free[cell] = False
                cells[cell, 0] = 0
                cells[cell, 1] = node
            used = max(used, base + children[num_children - 1] + 1)
            for k in range(piece, stop):
                nodes[k] = base + spelled[k, depth]
                if lengths[k] == depth + 1:
                    cells[nodes[k], 2] = piece_ids[k]
            piece = stop
    return used
