"""tokenize: documents become ids with sentence and word boundaries.

One Arrow row a document. ``sentence_lengths`` sum up to the number of ids; ``word_starts`` marks
the pieces that begin a word. A document without a single token is counted as a reject.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from preprocessing.sentences import split_sentences
from preprocessing.settings import Preparation
from preprocessing.stage import Made
from preprocessing.storage import (
    InputError,
    Manifest,
    file_digest,
    manifest_digest,
    open_shard,
    shard_name,
    write_shard,
)
from preprocessing.tokens import ROWS_PER_BATCH, token_schema
from preprocessing.vocabulary import TOKENIZER_FILE, Vocabulary


@dataclass(frozen=True)
class Task:
    """Some record batches of a document shard that become one shard of tokens."""

    source: Path
    batches: range
    tokenizer: Path
    directory: Path
    split: str
    number: int


class Tokenize:
    """The stage, as :func:`preprocessing.stage.run_stage` sees it."""

    name = "tokenize"

    def __init__(self, preparation: Preparation) -> None:
        self._source = preparation.clean_directory
        self._tokenizer = preparation.tokenizer_directory
        self._shard_bytes = preparation.corpus.shard_bytes
        self.directory = preparation.tokens_directory

    def configuration(self) -> Any:
        """The cut into shards."""
        return {"shard_bytes": self._shard_bytes}

    def inputs(self) -> Mapping[str, str]:
        """The documents' manifest and the tokenizer."""
        return {
            "clean": manifest_digest(self._source),
            "tokenizer": Vocabulary.load(self._tokenizer).digest,
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
                    Task(path, batches, self._tokenizer, self.directory, shard.split, number)
                )
        return tasks

    @property
    def function(self) -> Callable[[Task], Made]:
        """Tokenize the documents of one task."""
        return tokenize

    def finish(self, made: Sequence[Made]) -> Mapping[str, Any]:
        """The tokenizer these ids belong to; refuses a corpus without tokens."""
        if not any(shard.rows for one in made for shard in one.shards):
            raise InputError(f"{self._source}: not one document has a token")
        return {"tokenizer": file_digest(self._tokenizer / TOKENIZER_FILE)}


def tokenize(task: Task) -> Made:
    """Write one shard of tokens."""
    vocabulary = Vocabulary.load(task.tokenizer)
    continues = vocabulary.continues_word
    columns = token_schema(vocabulary)
    name = shard_name(task.split, task.number)
    reader = open_shard(task.source)
    num_tokens = num_sentences = num_unknown = without_tokens = 0
    unknown = vocabulary.tokenizer.token_to_id("[UNK]")
    with write_shard(task.directory / name, columns, ROWS_PER_BATCH) as writer:
        for index in task.batches:
            batch = reader.get_batch(index)
            texts = batch.column("text").to_pylist()
            spans = [split_sentences(text) for text in texts]
            encoded = iter(
                vocabulary.encode(
                    [
                        text[start:stop]
                        for text, own in zip(texts, spans, strict=True)
                        for start, stop in own
                    ]
                )
            )
            documents = [[next(encoded) for _ in own] for own in spans]
            kept = [row for row, sentences in enumerate(documents) if any(sentences)]
            without_tokens += len(documents) - len(kept)
            lengths = [[len(ids) for ids in documents[row] if ids] for row in kept]
            sizes = [sum(own) for own in lengths]
            flat = np.fromiter(
                (i for row in kept for ids in documents[row] for i in ids),
                dtype=vocabulary.id_type,
                count=sum(sizes),
            )
            offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
            counts = [len(own) for own in lengths]
            writer.write(
                pa.RecordBatch.from_arrays(
                    [
                        batch.column("id").take(pa.array(kept, pa.int64())),
                        pa.LargeListArray.from_arrays(
                            offsets, pa.array(flat), type=columns.field("ids").type
                        ),
                        pa.LargeListArray.from_arrays(
                            offsets,
                            pa.array(~continues[flat]),
                            type=columns.field("word_starts").type,
                        ),
                        pa.LargeListArray.from_arrays(
                            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
                            pa.array([n for own in lengths for n in own], pa.int32()),
                            type=columns.field("sentence_lengths").type,
                        ),
                    ],
                    schema=columns,
                )
            )
            num_tokens += len(flat)
            num_sentences += sum(counts)
            num_unknown += int((flat == unknown).sum())
        counts_of_shard = {
            "tokens": num_tokens,
            "sentences": num_sentences,
            "unknown": num_unknown,
        }
        shard = writer.finish(name, counts_of_shard)
    return Made((shard,), {"no_tokens": without_tokens} if without_tokens else {})
