"""What counts as a duplicate, and how near duplicates are found.

Exact duplicates have equal texts. Near duplicates are found by MinHash (Broder, 1997) and locality-
sensitive hashing (Indyk and Motwani, 1998): a document is the set of its shingles, a signature
estimates the Jaccard similarity of two such sets, and only documents that agree in a whole band of
their signatures are compared at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import numpy as np
import pydantic

from configs.schema import config

_MISS_COST, _COMPARISON_COST = 0.9, 0.1


@config
class NearConfig:
    """Near duplicates: a document goes where an earlier one is as similar as this.

    Attributes:
        threshold: estimated Jaccard similarity from which the later document goes.
        ngram: words (characters in scripts without spaces) in a shingle.
        num_hashes: numbers in a signature; the estimate's standard error is at most
            ``sqrt(threshold * (1 - threshold) / num_hashes)``.
    """

    threshold: Annotated[float, pydantic.Field(gt=0.0, lt=1.0)] = 0.8
    ngram: Annotated[int, pydantic.Field(ge=1, le=64)] = 5
    num_hashes: Annotated[int, pydantic.Field(ge=16, le=1024)] = 128

    @property
    def bands(self) -> Bands:
        """How a signature is cut."""
        return best_bands(self.threshold, self.num_hashes)


@config
class DeduplicationConfig:
    """Exact duplicates always go; near ones where ``near`` is given."""

    near: NearConfig | None = None


@dataclass(frozen=True)
class Bands:
    """A signature cut into ``count`` bands of ``rows`` numbers; what is left over is not used.

    Two documents of similarity s agree in a whole band with probability
    ``1 - (1 - s ** rows) ** count``.
    """

    count: int
    rows: int


@lru_cache
def best_bands(threshold: float, num_hashes: int) -> Bands:
    """The cut with the least expected error over all similarities.

    As ``datasketch`` does, by the areas under the curve of :class:`Bands` where pairs below the
    threshold are compared and above the curve where pairs beyond it are missed. Since candidates
    are verified by their signatures, a needless comparison costs time and a miss costs the result:
    misses weigh nine times as much.

        >>> best_bands(0.8, 128)
        Bands(count=14, rows=9)
    """
    steps = (np.arange(1000) + 0.5) / 1000
    below, above = threshold * steps, threshold + (1 - threshold) * steps
    best, least = Bands(1, 1), float("inf")
    for count in range(1, num_hashes + 1):
        for rows in range(1, num_hashes // count + 1):
            compared = threshold * float(np.mean(1 - (1 - below**rows) ** count))
            missed = (1 - threshold) * float(np.mean((1 - above**rows) ** count))
            error = _COMPARISON_COST * compared + _MISS_COST * missed
            if error < least - 1e-12:
                best, least = Bands(count, rows), error
    return best
