"""tokenize: documents become ids with sentence and word boundaries.

One Arrow row a document. ``sentence_lengths`` sum up to the number of ids; ``word_starts`` marks
the tokens that begin a word. A sentence without a token vanishes; a document without a single one
is a reject, ``no_tokens``. Annotations, where the corpus asks for them, add a column of spans for
each layer, and one of capitals; a segmenter decides in its script which tokens begin a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from configs.schema import digest
from preprocessing.annotations import AnnotationsConfig
from preprocessing.annotations.annotator import (
    Annotator,
    TokenSpans,
    annotation_fields,
    describe,
    digests,
    merged,
)
from preprocessing.documents import Rejected, RejectLog
from preprocessing.sentences import sentence_starts
from preprocessing.settings import Preparation
from preprocessing.stage import DigestedInputs, Made
from preprocessing.storage import (
    InputError,
    Manifest,
    manifest_digest,
    open_shard,
    shard_name,
    write_shard,
)
from preprocessing.texts import Texts
from preprocessing.tokenization.base import Encoded, Encoder
from preprocessing.tokens import ROWS_PER_BATCH, token_schema
from preprocessing.vocabulary import Vocabulary

_BYTES_AT_ONCE = 8 * 2**20
"""Of text that is encoded at a time, but one document at least."""


_BYTES_A_TOKEN = 3.5
"""Measured: 2.7 to 4.5 bytes of text for word pieces in German, English, Chinese and Japanese."""
_BOUNDARY_BYTES = 0.5


@dataclass(frozen=True)
class Task:
    """Some record batches of a document shard that become one shard of tokens."""

    source: Path
    batches: range
    tokenizer: Path
    tokenizer_digest: str
    annotations: AnnotationsConfig
    annotations_digest: str
    directory: Path
    split: str
    number: int
    origin: str | None


class Tokenize(DigestedInputs):
    """The stage, as :func:`preprocessing.stage.run_stage` sees it."""

    name = "tokenize"

    def __init__(self, preparation: Preparation) -> None:
        self._source = preparation.clean_directory
        self._tokenizer = preparation.tokenizer_directory
        self._digest = Vocabulary.load(self._tokenizer).digest
        self._annotations = preparation.corpus.annotations
        self._lexicons = digests(self._annotations)
        self._shard_bytes = preparation.corpus.shard_bytes
        self.directory = preparation.tokens_directory

    def configuration(self) -> Any:
        """The cut into shards, and how annotations are found."""
        return {"shard_bytes": self._shard_bytes, "annotations": describe(self._annotations)}

    def inputs(self) -> Mapping[str, str]:
        """The documents' manifest, the tokenizer and the lexicons."""
        return {
            "clean": manifest_digest(self._source),
            "tokenizer": self._digest,
            **self._lexicons,
        }

    def plan(self) -> Sequence[Task]:
        """One task a shard; a shard much larger than the others is cut between its batches."""
        tasks: list[Task] = []
        numbers: dict[str, int] = {}
        for shard in Manifest.read(self._source).shards:
            path = self._source / shard.name
            total = open_shard(path).num_record_batches
            pieces = max(1, min(total, round(shard.size / self._shard_bytes)))
            for piece in range(pieces):
                batches = range(total * piece // pieces, total * (piece + 1) // pieces)
                number = numbers.get(shard.split, 0)
                numbers[shard.split] = number + 1
                tasks.append(
                    Task(
                        path,
                        batches,
                        self._tokenizer,
                        self._digest,
                        self._annotations,
                        digest(self._lexicons),
                        self.directory,
                        shard.split,
                        number,
                        shard.source,
                    )
                )
        return tasks

    def expected_bytes(self) -> int:
        """Ids, boundaries and document ids, for text that falls into the usual pieces."""
        width = np.dtype(Vocabulary.load(self._tokenizer).id_type).itemsize + _BOUNDARY_BYTES
        return round(Manifest.read(self._source).totals()["bytes"] * width / _BYTES_A_TOKEN)

    @property
    def function(self) -> Callable[[Task], Made]:
        """Tokenize the documents of one task."""
        return tokenize

    def finish(self, made: Sequence[Made]) -> Mapping[str, Any]:
        """The tokenizer these ids belong to; refuses a corpus without tokens."""
        if not any(shard.rows for one in made for shard in one.shards):
            raise InputError(f"{self._source}: not one document has a token")
        return {"tokenizer": self._digest}


def tokenize(task: Task) -> Made:
    """Write one shard of tokens."""
    vocabulary, encoder = _open(task.tokenizer, task.tokenizer_digest)
    annotator = _load_annotator(task.annotations, task.annotations_digest)
    columns = token_schema(vocabulary, annotation_fields(task.annotations))
    name = shard_name(task.split, task.number)
    reader = open_shard(task.source)
    counts = {"tokens": 0, "sentences": 0, "unknown": 0}
    without_tokens = 0
    with (
        RejectLog(task.directory, task.split, task.number) as log,
        write_shard(task.directory / name, columns, ROWS_PER_BATCH) as writer,
    ):
        for documents in _parts(reader.get_batch(index) for index in task.batches):
            texts = Texts.of(documents.column("text"))
            starts = sentence_starts(texts)
            annotations = annotator.annotate(texts)
            marks = merged(starts, annotations.marks)
            encoded = encoder.encode(texts, marks)
            encoded = replace(encoded, word_starts=annotations.word_starts(marks, encoded))
            places = encoded.marks[np.searchsorted(marks, starts)]
            sentences = sentence_bounds(texts, starts, places, encoded.offsets)
            spans = annotations.token_spans(marks, encoded)
            kept = np.diff(encoded.offsets) > 0
            capitals = annotations.capitals(marks, encoded)
            writer.write(
                _rows(columns, documents.column("id"), encoded, sentences, spans, capitals, kept)
            )
            for layer, found in spans.items():
                counts[layer] = counts.get(layer, 0) + len(found.starts)
                dropped = f"{layer}_dropped"
                counts[dropped] = counts.get(dropped, 0) + found.dropped
            counts["tokens"] += len(encoded.ids)
            counts["sentences"] += len(sentences) - 1
            if vocabulary.unknown_id is not None:
                counts["unknown"] += int(np.count_nonzero(encoded.ids == vocabulary.unknown_id))
            if not kept.all():
                for row in _without_tokens(documents.filter(pa.array(~kept))):
                    without_tokens += 1
                    log.add(row)
        shard = writer.finish(name, counts, task.origin)
    return Made((shard,), {"no_tokens": without_tokens} if without_tokens else {})


@lru_cache(maxsize=1)
def _open(directory: Path, digest: str) -> tuple[Vocabulary, Encoder]:
    """A vocabulary and its encoder, which the tasks of a process share with what it remembers."""
    vocabulary = Vocabulary.load(directory)
    if vocabulary.digest != digest:
        raise InputError(f"{directory}: the tokenizer has changed while it was used; run it again")
    return vocabulary, vocabulary.encoder()


@lru_cache(maxsize=1)
def _load_annotator(config: AnnotationsConfig, expected: str) -> Annotator:
    """What the tasks of a process share, since a large lexicon takes a second to read."""
    if digest(digests(config)) != expected:
        raise InputError("corpus.annotations: a lexicon has changed while it was used; run again")
    return Annotator(config)


def _parts(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows, so many at a time that their texts stay in bounds."""
    for batch in batches:
        ends = Texts.of(batch.column("text")).offsets
        start = 0
        while start < batch.num_rows:
            stop = int(np.searchsorted(ends, ends[start] + _BYTES_AT_ONCE, side="right")) - 1
            stop = max(stop, start + 1)
            yield batch.slice(start, stop - start)
            start = stop


def sentence_bounds(
    texts: Texts,
    starts: NDArray[np.int64],
    places: NDArray[np.int64],
    offsets: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The tokens that begin sentences, and how many tokens there are: ascending, all different.

    What stands before a text's first sentence belongs to it, and a sentence without a token to
    none, so every text with a token begins a sentence.

    Args:
        texts: what was encoded.
        starts: the byte places where sentences begin.
        places: the tokens that lie there.
        offsets: the tokens that texts begin with, as :class:`Encoded` has them.
    """
    owner = np.searchsorted(texts.offsets, starts, side="right")
    later = owner[1:] == owner[:-1]
    return merged(offsets, places[1:][later])


def _rows(
    columns: pa.Schema,
    ids: pa.Array,
    encoded: Encoded,
    sentences: NDArray[np.int64],
    spans: Mapping[str, TokenSpans],
    capitals: NDArray[np.bool_] | None,
    kept: NDArray[np.bool_],
) -> pa.RecordBatch:
    """The rows of the documents that have tokens."""
    stops = encoded.offsets[1:][kept]
    offsets = np.concatenate([[0], stops])
    values = {
        "ids": (offsets, encoded.ids),
        "word_starts": (offsets, encoded.word_starts),
        "sentence_lengths": (
            np.searchsorted(sentences, offsets),
            np.diff(sentences).astype(np.int32),
        ),
    }
    if capitals is not None:
        values["capitals"] = (offsets, capitals)
    lists = [
        pa.LargeListArray.from_arrays(
            pa.array(places), pa.array(own), type=columns.field(name).type
        )
        for name, (places, own) in values.items()
    ]
    layers = [found.column(kept) for found in spans.values()]
    return pa.RecordBatch.from_arrays([ids.filter(pa.array(kept)), *lists, *layers], schema=columns)


def _without_tokens(documents: pa.RecordBatch) -> list[Rejected]:
    return [
        Rejected(
            "no_tokens",
            row["source"],
            row["offset"],
            "the tokenizer finds nothing in this text",
            row["id"].hex(),
        )
        for row in documents.select(["id", "source", "offset"]).to_pylist()
    ]
