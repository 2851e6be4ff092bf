"""Which documents a vocabulary is trained on: all of them, or a share language by language.

With n_i bytes of language i, it gets a share of the training text proportional to n_i**alpha
(Conneau and Lample, 2019, section 3.1). The text is as large as the corpus, or as the limit where
that is smaller. A document is taken c times, c being its language's wanted bytes over those it
has: the whole part of c for certain, once more where the draw keyed by the document's id says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from preprocessing.documents import read_batches
from preprocessing.draws import purpose_key, uniform

UNDETERMINED = "und"
"""The language of documents that do not say theirs (ISO 639-2)."""


@dataclass(frozen=True)
class TrainingTexts:
    """The sampled documents of some shards, in their order; may be gone through many times.

    Attributes:
        shards: document shards.
        copies: how often a document of a language is taken, on average.
        key: of the draws.
    """

    shards: tuple[Path, ...]
    copies: Mapping[str, float]
    key: np.uint64

    def __call__(self) -> Iterator[list[str]]:
        """Texts in batches of some hundreds."""
        for batch, counts in self.batches():
            texts = batch.column("text")
            yield texts.take(pa.array(np.repeat(np.arange(len(counts)), counts))).to_pylist()

    def batches(self) -> Iterator[tuple[pa.RecordBatch, NDArray[np.int64]]]:
        """Record batches of documents, and how often each document is taken."""
        for path in self.shards:
            for batch in read_batches(path):
                wanted = np.array(
                    [self.copies[language] for language in languages(batch).to_pylist()]
                )
                sure = np.floor(wanted)
                again = uniform(id_bits(batch) ^ self.key, 0, 0) < wanted - sure
                yield batch, sure.astype(np.int64) + again

    def bytes_by_language(self) -> dict[str, int]:
        """Bytes of text that the sample holds."""
        sums: Counter[str] = Counter()
        for batch, counts in self.batches():
            sums.update(_sum_by_language(batch, counts))
        return dict(sorted(sums.items()))


def training_texts(
    shards: Sequence[Path], *, seed: int, alpha: float, max_bytes: int
) -> TrainingTexts:
    """Choose documents; the shards are gone through once for their sizes by language."""
    sizes = bytes_by_language(shards)
    return TrainingTexts(
        tuple(shards),
        copies_by_language(sizes, alpha, max_bytes),
        purpose_key(seed, "tokenizer sample"),
    )


def copies_by_language(sizes: Mapping[str, int], alpha: float, max_bytes: int) -> dict[str, float]:
    """How often a document of each language is taken.

    >>> copies_by_language({"de": 100, "en": 900}, alpha=0.5, max_bytes=1000)
    {'de': 2.5, 'en': 0.8333333333333334}
    """
    total = sum(sizes.values())
    weights = {name: (size / total) ** alpha for name, size in sizes.items() if size}
    wanted = min(total, max_bytes) / sum(weights.values()) if weights else 0.0
    return {name: weights[name] * wanted / size if size else 1.0 for name, size in sizes.items()}


def bytes_by_language(shards: Sequence[Path]) -> dict[str, int]:
    """UTF-8 bytes of text by language."""
    sums: Counter[str] = Counter()
    for path in shards:
        for batch in read_batches(path):
            sums.update(_sum_by_language(batch, np.ones(batch.num_rows, dtype=np.int64)))
    return dict(sorted(sums.items()))


def languages(batch: pa.RecordBatch) -> pa.StringArray:
    """The language of every document."""
    return pc.fill_null(batch.column("language"), UNDETERMINED)


def id_bits(batch: pa.RecordBatch) -> NDArray[np.uint64]:
    """The first 8 bytes of every document's id, ``[rows]``."""
    column = batch.column("id")
    words = np.frombuffer(column.buffers()[1], dtype="<u8").reshape(-1, 2)
    return words[column.offset : column.offset + len(column), 0]


def _sum_by_language(batch: pa.RecordBatch, counts: NDArray[Any]) -> dict[str, int]:
    sizes = pc.multiply(pc.binary_length(batch.column("text")), pa.array(counts))
    table = pa.table({"language": languages(batch), "bytes": sizes})
    sums = table.group_by("language").aggregate([("bytes", "sum")]).to_pydict()
    return dict(zip(sums["language"], sums["bytes_sum"], strict=True))
