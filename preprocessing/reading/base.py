"""What reading passes on: candidate texts from the forms, documents and rejects to the stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

BUFFER_BYTES = 1 << 20
"""How much of a text is looked at together, at least; so that numpy has something to do."""
MAX_GROWTH_BYTES = 1 << 24

Reason = Literal[
    "damaged_archive",
    "empty_text",
    "invalid_bytes",
    "invalid_csv",
    "invalid_json",
    "invalid_markup",
    "lone_surrogate",
    "missing_text",
    "oversized",
]


@dataclass(frozen=True)
class Reject:
    """A record that is no document, and why. ``offset`` counts as a document's does."""

    reason: Reason
    offset: int
    detail: str


@dataclass(frozen=True)
class Split:
    """A document of more than the allowed size, which comes in pieces."""

    offset: int


@dataclass(frozen=True)
class Found:
    """Texts as a form found them, before anything is known of their bytes.

    Attributes:
        texts: what should be UTF-8.
        offsets: int64 ``[texts]``, where their records begin.
        languages: of each of them, where a field says it.
        licences: of each of them, where a field says it.
        replaced_bytes: what was invalid in them and has been replaced already.
    """

    texts: pa.LargeBinaryArray
    offsets: NDArray[np.int64]
    languages: Sequence[str | None] | None = None
    licences: Sequence[str | None] | None = None
    replaced_bytes: int = 0


@dataclass(frozen=True)
class Documents:
    """Documents of one raw file.

    Attributes:
        texts: valid UTF-8, none of it empty or white space, every line end ``\\n``.
        offsets: int64 ``[texts]``: bytes of the file's uncompressed text (as UTF-8, where it was
            in another encoding); rows in columnar forms.
        languages: of each of them, where a field says it.
        licences: of each of them, where a field says it.
        replaced_bytes: invalid bytes that became U+FFFD.
    """

    texts: pa.LargeStringArray
    offsets: NDArray[np.int64]
    languages: Sequence[str | None] | None = None
    licences: Sequence[str | None] | None = None
    replaced_bytes: int = 0

    def __len__(self) -> int:
        return len(self.offsets)


class DamagedError(Exception):
    """A file whose bytes make no sense from ``offset`` on.

    What came before is ``complete`` where it ended by itself, and the rest is only garbage.
    """

    def __init__(self, offset: int, detail: str, *, complete: bool = False) -> None:
        super().__init__(detail)
        self.offset = offset
        self.complete = complete


def gathered(blocks: Iterator[bytes], carried: Callable[[], int]) -> Iterator[bytes]:
    """Blocks joined to larger ones.

    They grow with what their reader has carried, so that nothing is scanned again and again. What
    came before an error in the blocks is given before the error.
    """
    parts: list[bytes] = []
    size = 0
    try:
        for block in blocks:
            parts.append(block)
            size += len(block)
            if size >= max(BUFFER_BYTES, min(carried(), MAX_GROWTH_BYTES)):
                yield b"".join(parts)
                parts, size = [], 0
    except DamagedError:
        if parts:
            yield b"".join(parts)
        raise
    if parts:
        yield b"".join(parts)
