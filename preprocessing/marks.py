"""What is known of single tokens, as bits of one byte: ``marks`` lie beside ids, token by token.

    tokens   [CLS] un ##aff ##able  New York  .   [SEP]
    WORD       0    1   0     0      1    1   1     0
    SENTENCE   0    1   0     0      0    0   0     0
    ENTITY     0    0   0     0     start inside 0  0
    CAPITAL    0    0   0     0      1    1   0     0

Special tokens have none. Rows hold marks only where a corruption asks for them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preprocessing.tokens import TokenStore

WORD = 1
"""Begins a word."""
SENTENCE = 2
"""Begins a sentence."""
PHRASE, IN_PHRASE = 4, 8
"""Begins a phrase of the lexicon; goes on with one."""
ENTITY, IN_ENTITY = 16, 32
"""Begins an entity of the lexicon; goes on with one."""
CAPITAL = 64
"""Belongs to a word that begins with a capital letter."""
RECURS = 128
"""Occurs in its document outside of its sequence, too."""

_LAYERS = {"phrases": (PHRASE, IN_PHRASE), "entities": (ENTITY, IN_ENTITY)}


def document_marks(store: TokenStore, document: int, wanted: int) -> NDArray[np.uint8]:
    """The wanted marks of a document's tokens, ``[tokens]``; what concerns sequences is not here.

    Raises:
        InputError: the tokens were made without what is asked for.
    """
    marks = np.zeros(len(store.ids(document)), dtype=np.uint8)
    if wanted & WORD:
        marks[store.word_starts(document)] |= WORD
    if wanted & SENTENCE:
        lengths = store.sentence_lengths(document)
        marks[np.cumsum(lengths) - lengths] |= SENTENCE
    for layer, (start, inside) in _LAYERS.items():
        if wanted & (start | inside):
            for begin, length in store.spans(layer, document).tolist():
                marks[begin] |= start
                marks[begin + 1 : begin + length] |= inside
    if wanted & CAPITAL:
        marks[store.capitals(document)] |= CAPITAL
    return marks
