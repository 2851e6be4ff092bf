"""A column of texts as Arrow holds it: one buffer of UTF-8 bytes and the places of its texts.

Whatever looks at every character (sentence boundaries, words, lexicon matches) works on this form
without making a Python string, and names places by their byte in ``data``.

    >>> texts = Texts.of(pa.array(["one two", "drei"]))
    >>> bytes(texts.data[texts.offsets[1] : texts.offsets[2]])
    b'drei'
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True)
class Texts:
    """Valid UTF-8 texts, one after the other.

    Attributes:
        data: uint8 ``[bytes]``; a view of Arrow's own buffer, never copied.
        offsets: int64 ``[texts + 1]``; text i is ``data[offsets[i]:offsets[i + 1]]``. The first
            offset need not be 0, since a slice of a column shares its buffer.
    """

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @staticmethod
    def of(column: pa.StringArray | pa.LargeStringArray) -> Texts:
        """The texts of a column without nulls."""
        large = column.cast(pa.large_string())
        _, offsets, data = large.buffers()
        places = np.frombuffer(offsets, dtype=np.int64)[large.offset :][: len(large) + 1]
        raw = np.frombuffer(data, dtype=np.uint8) if data is not None else np.zeros(0, np.uint8)
        return Texts(raw, places)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def text(self, index: int) -> str:
        """One of them as a Python string."""
        return bytes(self.data[self.offsets[index] : self.offsets[index + 1]]).decode()
