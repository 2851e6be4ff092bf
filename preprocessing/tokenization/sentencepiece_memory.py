"""What the SentencePiece encoder keeps: the chunks it has met, and room to work on one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LONGEST = 4096
"""Bytes of a chunk."""
LONGEST_KEY = 64
"""Bytes of a chunk that is remembered."""
_FORM = 4 * LONGEST
"""Room for the normal form of a chunk, in characters."""
TOKENS_A_FORM = 4 * _FORM
"""Tokens of one chunk are at most so many: one a byte."""


@dataclass
class ChunkMemory:
    """A bounded hash table of chunks, and the tokens of each.

    Attributes:
        slots: upper half of the hash above the entry's number plus one; 0 is empty.
        entries: begin and length of the key (negative where the chunk goes on a word), begin and
            number of the tokens, and the largest magnitude of the sum before for which they are
            sure.
        keys: bytes of the chunks.
        tokens: twice the id, and 1 more where a word begins.
        scores, begins: of the tokens; ``begins`` in bytes of the chunk.
        used: entries, bytes of keys, tokens.
    """

    slots: NDArray[np.uint64]
    entries: NDArray[np.int32]
    keys: NDArray[np.uint8]
    tokens: NDArray[np.int32]
    scores: NDArray[np.float32]
    begins: NDArray[np.uint16]
    used: NDArray[np.int64]

    @staticmethod
    def of(limit: int) -> ChunkMemory:
        """Room for so many chunks of usual length."""
        tokens = 4 * limit + 2 * TOKENS_A_FORM
        return ChunkMemory(
            np.zeros(1 << (2 * limit - 1).bit_length(), np.uint64),
            np.zeros((limit, 5), np.int32),
            np.zeros(16 * limit + LONGEST_KEY, np.uint8),
            np.zeros(tokens, np.int32),
            np.zeros(tokens, np.float32),
            np.zeros(tokens, np.uint16),
            np.zeros(3, np.int64),
        )

    @property
    def arrays(self) -> tuple[Any, ...]:
        """As the kernel takes them."""
        return (
            self.slots, self.entries, self.keys,
            self.tokens, self.scores, self.begins, self.used,
        )  # fmt: skip

    def clear(self) -> None:
        """Forget all chunks."""
        self.slots[:] = 0
        self.used[:] = 0


@dataclass
class Scratch:
    """Room for one chunk: its normal form, where that comes from, the search for its pieces."""

    text: NDArray[np.int32]
    origins: NDArray[np.int32]
    best: NDArray[np.float64]
    sums: NDArray[np.float32]
    back: NDArray[np.int32]
    symbols: NDArray[np.int64]
    room: int = _FORM

    @staticmethod
    def of() -> Scratch:
        """For any chunk."""
        size = _FORM + 8
        return Scratch(
            np.zeros(size, np.int32),
            np.zeros(size, np.int32),
            np.zeros((size, 2)),
            np.zeros(size, np.float32),
            np.zeros((size, 2), np.int32),
            np.zeros((size, 3), np.int64),
        )

    @property
    def arrays(self) -> tuple[Any, ...]:
        """As the kernel takes them."""
        return self.text, self.origins, self.best, self.sums, self.back, self.symbols
