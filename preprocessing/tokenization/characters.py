"""Vocabularies of single characters: every character is a chunk, a run of white space another.

A character that is surely visible is normalised and looked up by itself, since lower-casing and
replacing runs of white space are all that is done to the text. White space, and every character
that Python does not know, is kept together with its like and left to the reference, which sees
each of them once.
"""

from __future__ import annotations

import unicodedata

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from preprocessing.texts import Texts
from preprocessing.tokenization.cuts import ALONE, NUM_POINTS, WORD, cut
from preprocessing.tokenization.dictionary import Pool


class CharactersPipeline:
    """One token a character; :mod:`.choice` has looked at its configuration.

    Args:
        tokenizer: lower-cases or not, drops white space or makes one space of it, and splits
            between all characters.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._kinds = np.full(NUM_POINTS, WORD, np.uint8)
        for point in range(NUM_POINTS):
            if unicodedata.category(chr(point))[0] in "LMNPS":
                self._kinds[point] = ALONE
        visible = "".join(map(chr, np.flatnonzero(self._kinds == ALONE)))
        if " " in tokenizer.normalizer.normalize_str(visible):  # one of them is white space to it
            self._kinds[:] = WORD

    def cut(
        self,
        texts: Texts,
        state: NDArray[np.int64],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int32],
        hashes: NDArray[np.uint64],
    ) -> int:
        """The characters of the texts."""
        return int(cut(texts.data, texts.offsets, self._kinds, state, starts, lengths, hashes))

    def encode(
        self,
        data: NDArray[np.uint8],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int32],
        pool: Pool,
        counts: NDArray[np.int32],
    ) -> None:
        """Each is the reference's, once."""
        counts[:] = -1
