"""Random access to the documents of a token store: document number -> ids and sentences.

Every record batch but a shard's last holds the same number of rows, so that a document is found
by arithmetic, and what is read is the page cache itself: nothing is copied, nothing is loaded.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from configs.schema import digest
from preprocessing.storage import InputError, Manifest, Shard, manifest_digest, open_shard
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


Sources: TypeAlias = tuple[str, ...] | None
"""Names of sources of the corpus that alone are read; None for everything."""


def chosen_shards(directory: Path, split: str, sources: Sources) -> tuple[Shard, ...]:
    """The shards of a split that hold documents, or tokens, of some sources.

    A validation set with files of its own belongs to none of them and is read whole.

    Raises:
        InputError: the shards do not know their source, or there is none of one of them.
    """
    manifest = Manifest.read(directory)
    if sources is None:
        return manifest.of(split)
    known = {shard.source or "" for shard in manifest.of("train")}
    if "" in known:
        raise InputError(
            f"{directory}: these shards do not say which source they are of; name corpus.sources, "
            "and where they have names already, make everything anew from ingest on (--overwrite)"
        )
    if missing := sorted(set(sources) - known):
        raise InputError(
            f"{directory}: there is nothing of source {', '.join(missing)} here, "
            f"only of {', '.join(sorted(known))}"
        )
    return tuple(shard for shard in manifest.of(split) if shard.source in (None, *sources))


def digest_of_sources(directory: Path, sources: Sources) -> str:
    """What identifies documents or tokens: their manifest, or the shards of some sources alone.

    So other sources may come to the corpus, and what is made of these stays as it is.
    """
    if sources is None:
        return manifest_digest(directory)
    chosen_shards(directory, "train", sources)
    return shards_digest(Manifest.read(directory), sources)


def shards_digest(manifest: Manifest, sources: Sequence[str]) -> str:
    """Of the shards of some sources, and of those that belong to none."""
    chosen = {
        split: [one.checksum for one in manifest.of(split) if one.source in (None, *sources)]
        for split in manifest.splits
    }
    return digest({split: checksums for split, checksums in chosen.items() if checksums})


def token_digests(tokens: Path, tokenizer: Path, sources: Sources = None) -> Mapping[str, str]:
    """What identifies tokens as an input: the tokens, and the tokenizer they were made with.

    Raises:
        InputError: that is not the tokenizer that is there now.
    """
    vocabulary = Vocabulary.load(tokenizer)
    made_with = Manifest.read(tokens).facts["tokenizer"]
    if made_with != vocabulary.digest:
        raise InputError(
            f"{tokens}: these shards were made with another tokenizer "
            f"({made_with[:8]}) than {vocabulary.directory} ({vocabulary.digest[:8]}); "
            "run tokenize again, or restore the tokenizer"
        )
    return {"tokens": digest_of_sources(tokens, sources), "tokenizer": vocabulary.digest}


class Ragged:
    """Lists of one record batch: ``[row]`` gives a NumPy view."""

    def __init__(self, column: pa.LargeListArray) -> None:
        self.offsets = np.asarray(column.offsets)
        self.values: NDArray[Any] = column.values.to_numpy(zero_copy_only=True)

    def __getitem__(self, row: int) -> NDArray[Any]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]


class TokenStore:
    """The documents of one split, numbered from 0 in the manifest's order.

    Where only some ``sources`` are read, the documents of the others have no number.
    """

    def __init__(self, directory: Path, split: str, sources: Sources = None) -> None:
        self.manifest = Manifest.read(directory)
        self.shards = shards = chosen_shards(directory, split, sources)
        self._paths = [directory / shard.name for shard in shards]
        # Not all at once: what an open shard takes would grow with their number.
        self._reader = lru_cache(maxsize=64)(self._open)
        self._schema = self._reader(0).schema if shards else pa.schema([])
        self._starts = list(itertools.accumulate((shard.rows for shard in shards), initial=0))
        self._batch = lru_cache(maxsize=1024)(self._read_batch)

    @property
    def num_documents(self) -> int:
        """Documents of the split."""
        return self._starts[-1]

    @property
    def shard_ranges(self) -> list[range]:
        """Document numbers of each shard."""
        return list(itertools.starmap(range, itertools.pairwise(self._starts)))

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

    def capitals(self, document: int) -> NDArray[np.bool_]:
        """Which tokens of a document are part of a capitalised word ``[tokens]``.

        Raises:
            InputError: these tokens were made without them.
        """
        if "capitals" not in self._schema.names:
            raise InputError(
                "these tokens do not know capitals: set corpus.annotations.capitals to true, "
                "and tokenize anew"
            )
        flags: NDArray[np.bool_] = self._value("capitals", document).values.to_numpy(
            zero_copy_only=False
        )
        return flags

    def spans(self, layer: str, document: int) -> NDArray[np.int32]:
        """Spans of a layer (``phrases``, ``entities``) in a document.

        Returns:
            ``[spans, 2]``: first token and number of tokens; ascending, without overlap.

        Raises:
            InputError: these tokens were made without that layer.
        """
        if layer not in self.layers:
            raise InputError(
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
        shard = bisect.bisect_right(self._starts, document) - 1
        batch, row = divmod(document - self._starts[shard], ROWS_PER_BATCH)
        return shard, batch, row

    def _read_batch(self, shard: int, index: int) -> tuple[Ragged, Ragged]:
        batch = self._reader(shard).get_batch(index)
        return Ragged(batch.column("ids")), Ragged(batch.column("sentence_lengths"))
