"""What every encoder takes and gives.

An encoder turns a column of texts into ids that are identical to those of its *reference*, the
library that the vocabulary was made by, called on each whole text. Other things that ride along
(sentence ends, lexicon entries, words found by a segmenter) are known as places in the bytes, so
an encoder also says at which token each *mark*, a byte place, lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from preprocessing.texts import Texts


@dataclass(frozen=True)
class Encoded:
    """Ids of a column of texts, without special tokens.

    Attributes:
        ids: uint16 or uint32 ``[tokens]``, as the vocabulary's ``id_type``.
        offsets: int64 ``[texts + 1]``; text i has ``ids[offsets[i]:offsets[i + 1]]``.
        word_starts: bool ``[tokens]``; True where a token begins a word.
        marks: int64 ``[marks]``; for every mark the index into ``ids`` of the first token that
            begins at or after it, or of the end of the text it lies in where there is none.
        exact: bool ``[marks]``; whether that token begins exactly there: white space between the
            mark and the token does not count, nor does a token that begins before the mark end
            after it.
    """

    ids: NDArray[Any]
    offsets: NDArray[np.int64]
    word_starts: NDArray[np.bool_]
    marks: NDArray[np.int64]
    exact: NDArray[np.bool_]


class Encoder(Protocol):
    """One vocabulary in one process; it remembers words, in bounded memory."""

    def encode(self, texts: Texts, marks: NDArray[np.int64]) -> Encoded:
        """Encode a column.

        Args:
            texts: any texts; every text by itself, nothing crosses from one to the next.
            marks: ascending byte places within ``texts.data``. A mark at the border of two texts
                belongs to the later one.
        """
