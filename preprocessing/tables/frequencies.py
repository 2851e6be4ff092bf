"""How often each id of the vocabulary occurs in the training tokens.

tokens                    5 7 5 | 9 5        of two shards
frequencies               0 0 0 0 0 3 0 1 0 1
cumulative_frequencies    0 0 0 0 0 3 3 4 4 5

The place of a number below 5, drawn at random, among the cumulative ones is a token drawn as often
as it occurs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, get_args

import numpy as np
from numpy.typing import NDArray

from configs.schema import config
from preprocessing.tables.base import Arrays, Table
from preprocessing.tokenizers.specials import Role
from preprocessing.tokens import TokenStore
from preprocessing.vocabulary import Vocabulary

_TOKENS_AT_A_TIME = 1 << 20


@config
class FrequenciesTable(Table):
    """int64 ``[size]``; special tokens occur 0 times, save the one for unknown pieces."""

    name: ClassVar[str] = "frequencies"

    def arrays(self) -> tuple[str, ...]:
        """``frequencies``, and their sums up to each id."""
        return ("frequencies", "cumulative_frequencies")

    def expected_values(self, vocabulary: Vocabulary) -> int:
        """Two an id."""
        return 2 * vocabulary.size

    def count(self, vocabulary: Vocabulary, store: TokenStore, documents: range) -> Arrays:
        """The occurrences in one shard."""
        counts = np.zeros(vocabulary.size, dtype=np.int64)
        held: list[NDArray[np.int64]] = []
        num_held = 0
        for document in documents:
            held.append(store.ids(document))
            num_held += len(held[-1])
            if num_held >= _TOKENS_AT_A_TIME or document == documents[-1]:
                counts += np.bincount(np.concatenate(held), minlength=vocabulary.size)
                held, num_held = [], 0
        return {"frequencies": counts}

    def build(self, vocabulary: Vocabulary, store: TokenStore, counts: Iterable[Arrays]) -> Arrays:
        """The occurrences in all of them."""
        total = np.zeros(vocabulary.size, dtype=np.int64)
        for own in counts:
            total += own["frequencies"]
        for role in get_args(Role):
            special = vocabulary.id_of(role)
            if role != "unknown" and special is not None:
                total[special] = 0
        return {"frequencies": total, "cumulative_frequencies": np.cumsum(total)}
