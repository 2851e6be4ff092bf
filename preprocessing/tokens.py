"""Random access to the documents of a token store: document number -> ids and sentences.

Every record batch but a shard's last holds the same number of rows, so that a document is found
by arithmetic, and what is read is the page cache itself: nothing is copied, nothing is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preprocessing.storage import Manifest, open_shard
from preprocessing.vocabulary import Vocabulary

ROWS_PER_BATCH = 256


def token_schema(vocabulary: Vocabulary, annotations: Sequence[pa.Field] = ()) -> pa.Schema:
    """Columns of a token shard, those of annotations last."""
    ids = pa.from_numpy_dtype(np.dtype(vocabulary.id_type))
    return pa.schema(
        [
            pa.field("id", pa.binary(16), nullable=False),
            pa.field("ids", pa.large_list(pa.field("item", ids, nullable=False)), nullable=False),
            pa.field(
                "word_starts",
                pa.large_list(pa.field("item", pa.bool_(), nullable=False)),
                nullable=False,
            ),
            pa.field(
                "sentence_lengths",
                pa.large_list(pa.field("item", pa.int32(), nullable=False)),
                nullable=False,
            ),
            *annotations,
        ]
    )


class Ragged:
    """Lists of one record batch: ``[row]`` gives a NumPy view."""

    def __init__(self, column: pa.LargeListArray) -> None:
        self.offsets = np.asarray(column.offsets)
        self.values: NDArray[Any] = column.values.to_numpy(zero_copy_only=True)

    def __getitem__(self, row: int) -> NDArray[Any]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]


class TokenStore:
    """The documents of one split, numbered from 0 in the manifest's order."""

    def __init__(self, directory: Path, split: str) -> None:
        self.manifest = Manifest.read(directory)
        shards = self.manifest.of(split)
        self._paths = [directory / shard.name for shard in shards]
        # Not all at once: what an open shard takes would grow with their number.
        self._reader = lru_cache(maxsize=64)(self._open)
        self._schema = self._reader(0).schema if shards else pa.schema([])
        self._starts = np.cumsum([0, *(shard.rows for shard in shards)])
        self._batch = lru_cache(maxsize=1024)(self._read_batch)

    @property
    def num_documents(self) -> int:
        """Documents of the split."""
        return int(self._starts[-1])

    @property
    def shard_ranges(self) -> list[range]:
        """Document numbers of each shard."""
        return [
            range(int(start), int(stop))
            for start, stop in zip(self._starts[:-1], self._starts[1:], strict=True)
        ]

    def ids(self, document: int) -> NDArray[Any]:
        """Token ids ``[tokens]`` of a document."""
        batch, row = self._locate(document)
        return batch[0][row]

    def sentence_lengths(self, document: int) -> NDArray[Any]:
        """Tokens of each sentence ``[sentences]`` of a document."""
        batch, row = self._locate(document)
        return batch[1][row]

    def word_starts(self, document: int) -> NDArray[np.bool_]:
        """Which tokens of a document begin a word ``[tokens]``."""
        starts: NDArray[np.bool_] = self._value("word_starts", document).values.to_numpy(
            zero_copy_only=False
        )
        return starts

    def spans(self, layer: str, document: int) -> NDArray[np.int32]:
        """Spans of a layer (``phrases``, ``entities``) in a document.

        Returns:
            ``[spans, 2]``: first token and number of tokens; ascending, without overlap.

        Raises:
            ValueError: these tokens were made without that layer.
        """
        if layer not in self.layers:
            raise ValueError(
                f"these tokens have no {layer}: name a lexicon in corpus.annotations.{layer}, "
                "and tokenize anew"
            )
        found = self._value(layer, document).values
        return np.stack([found.field(name).to_numpy() for name in ("start", "length")], axis=1)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of spans that these tokens have."""
        return tuple(layer for layer in ("phrases", "entities") if layer in self._schema.names)

    def _open(self, shard: int) -> pa.ipc.RecordBatchFileReader:
        return open_shard(self._paths[shard])

    def _value(self, column: str, document: int) -> pa.LargeListScalar:
        shard, batch, row = self._place(document)
        return self._reader(shard).get_batch(batch).column(column)[row]

    def _locate(self, document: int) -> tuple[tuple[Ragged, Ragged], int]:
        shard, batch, row = self._place(document)
        return self._batch(shard, batch), row

    def _place(self, document: int) -> tuple[int, int, int]:
        shard = int(np.searchsorted(self._starts, document, side="right")) - 1
        batch, row = divmod(document - int(self._starts[shard]), ROWS_PER_BATCH)
        return shard, batch, row

    def _read_batch(self, shard: int, index: int) -> tuple[Ragged, Ragged]:
        batch = self._reader(shard).get_batch(index)
        return Ragged(batch.column("ids")), Ragged(batch.column("sentence_lengths"))
