"""examples: tokens become sequences, sequences become rows of fixed length.

*Dynamic* examples hold the plain sequences, and the loader corrupts them; *static* ones are
corrupted here, by the same functions with the same keys. Training documents are laid out once a
copy; validation sets have one copy and are never shuffled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import to_plain
from preprocessing.building import RowMaker, special_ids
from preprocessing.corruption.base import UNLABELLED
from preprocessing.layouts.base import Cut
from preprocessing.rows import ROWS_PER_BATCH, TABLES, copy_split, split_of
from preprocessing.settings import ExamplesConfig, Preparation
from preprocessing.stage import DigestedInputs, Made
from preprocessing.stages.build_tables import table_arrays
from preprocessing.storage import (
    InputError,
    Manifest,
    Shard,
    manifest_digest,
    shard_name,
    write_shard,
)
from preprocessing.tables.files import read_array, write_array
from preprocessing.tokens import TokenStore, token_digests
from preprocessing.vocabulary import Vocabulary

_ROOM, _TARGETS = 1.4, 0.5
"""Bytes of rows to bytes of ids (measured: 1.0 to 1.6), and of the targets of static rows."""


@dataclass(frozen=True)
class Task:
    """The documents of one token shard, in one copy."""

    tokens: Path
    tokenizer: Path
    directory: Path
    split: str
    documents: range
    copy: int
    number: int
    seed: int
    config: ExamplesConfig
    tables: Mapping[str, Path]


@dataclass(frozen=True)
class TableTask:
    """An array that is kept beside the rows, so that nothing else is needed to train."""

    directory: Path
    name: str
    source: Path
    number: int


class BuildExamples(DigestedInputs):
    """The stage for one examples set, as :func:`preprocessing.stage.run_stage` sees it."""

    name = "examples"

    def __init__(self, preparation: Preparation, examples: str) -> None:
        self._preparation = preparation
        self._tokens = preparation.tokens_directory
        self._config = preparation.examples[examples]
        self._tables = preparation.tables_of(examples)
        self.directory = preparation.examples_directory(examples)

    def configuration(self) -> Any:
        """The examples section and the seed."""
        return {"seed": self._preparation.seed, "examples": to_plain(self._config)}

    def inputs(self) -> Mapping[str, str]:
        """The manifest of the tokens, the tokenizer they must have been made with, the tables.

        Raises:
            InputError: the token shards were made with another tokenizer.
        """
        return {
            **token_digests(
                self._tokens, self._preparation.tokenizer_directory, self._config.sources
            ),
            **{
                f"table {one.table.name}": manifest_digest(self._preparation.table_directory(one))
                for one in self._tables
            },
        }

    def plan(self) -> Sequence[Task | TableTask]:
        """One task a token shard and copy, then one an array of the tables."""
        tables = {
            name: path
            for one in self._tables
            for name, path in table_arrays(self._preparation.table_directory(one)).items()
        }
        rows = [
            Task(
                self._tokens,
                self._preparation.tokenizer_directory,
                self.directory,
                split,
                documents,
                copy,
                number,
                self._preparation.seed,
                self._config,
                tables,
            )
            for split in self._splits
            for copy in range(self._config.copies if split == "train" else 1)
            for number, documents in enumerate(self._store(split).shard_ranges)
        ]
        kept = [
            TableTask(self.directory, name, path, number)
            for number, (name, path) in enumerate(tables.items())
        ]
        return [*rows, *kept]

    def expected_bytes(self) -> int:
        """Every token in every copy, with specials, borders and some padding."""
        shards = {split: self._store(split).shards for split in self._splits}
        tokens = {split: sum(one.counts["tokens"] for one in own) for split, own in shards.items()}
        total = sum(tokens.values()) + (self._config.copies - 1) * tokens["train"]
        width = np.dtype(Vocabulary.load(self._preparation.tokenizer_directory).id_type).itemsize
        return round(total * width * (_ROOM + _TARGETS * (self._config.mode == "static")))

    @property
    def _splits(self) -> tuple[str, ...]:
        return Manifest.read(self._tokens).splits

    def _store(self, split: str) -> TokenStore:
        return TokenStore(self._tokens, split, self._config.sources)

    @property
    def function(self) -> Callable[[Task | TableTask], Made]:
        """Build the rows of one task, or keep a table."""
        return build

    def finish(self, made: Sequence[Made]) -> Mapping[str, Any]:
        """What the loader must know: static shapes and special ids."""
        tables = {one.facts["table"]: one.shards[0].name for one in made if "table" in one.facts}
        made = [one for one in made if "table" not in one.facts]
        shards = [shard for one in made for shard in one.shards]
        copies: dict[str, set[int]] = {}
        rows: dict[str, int] = {}
        for shard in shards:
            split, copy, _ = split_of(shard.split)
            copies.setdefault(split, set()).add(copy)
            rows[split] = rows.get(split, 0) + shard.rows
        for split, count in rows.items():
            if count == 0:
                raise InputError(f"{self.directory}: not one example for '{split}'")
        vocabulary = Vocabulary.load(self._preparation.tokenizer_directory)
        config = self._config
        special = special_ids(vocabulary)
        *buckets, longest = (self._shape(length, made) for length in config.row_lengths)
        return {
            **longest,
            **({"buckets": {str(one["length"]): one for one in buckets}} if buckets else {}),
            "rows_per_batch": ROWS_PER_BATCH,
            "label": config.layout.label(),
            "static": config.mode == "static",
            "decoder_targets": made[0].facts[str(config.length)]["decoder_targets"],
            "splits": {split: len(own) for split, own in copies.items()},
            "special": to_plain(special),
            "tables": tables,
            "tokenizer": vocabulary.digest,
        }

    def _shape(self, length: int, made: Sequence[Made]) -> dict[str, Any]:
        """What is static about rows of one length."""
        own = [one.facts[str(length)] for one in made]
        return {
            "length": length,
            "decoder_length": self._config.decoder_length_of(length),
            "max_targets": _largest([one["max_targets"] for one in own]),
            "max_sequences": max(one["max_sequences"] for one in own),
        }


def _largest(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    return {name: max(one[name] for one in counts) for name in counts[0]}


def build(task: Task | TableTask) -> Made:
    """Write the rows of one task, a shard a length, or one array."""
    if isinstance(task, TableTask):
        name = shard_name(TABLES, task.number)
        shard = write_array(task.directory, name, task.name, read_array(task.source))
        return Made((shard,), facts={"table": task.name})
    config = task.config
    vocabulary = Vocabulary.load(task.tokenizer)
    store = TokenStore(task.tokens, task.split, config.sources)
    tables = {name: read_array(path) for name, path in task.tables.items()}
    makers = {
        length: RowMaker(config, vocabulary, store, task.seed, tables, length=length)
        for length in config.row_lengths
    }
    cut = makers[config.length].cut(task.documents, task.copy)
    shards = [_write_rows(task, length, maker, cut) for length, maker in makers.items()]
    return Made(tuple(shards), facts={str(length): maker.facts for length, maker in makers.items()})


def _write_rows(task: Task, length: int, maker: RowMaker, cut: Cut) -> Shard:
    is_longest = length == task.config.length
    split = copy_split(task.split, task.copy, None if is_longest else length)
    name = shard_name(split, task.number)
    counts = {"tokens": 0, "sequences": 0, "slots": 0}
    labels: Counter[int] = Counter()
    if cut.left_out and is_longest:
        counts["left_out"] = cut.left_out
    with write_shard(task.directory / name, maker.schema, ROWS_PER_BATCH) as writer:
        for members in _chunks(maker.members(cut)):
            rows, batch = maker.make(cut, members, task.copy)
            writer.write(batch)
            counts["tokens"] += len(rows.sequences.tokens)
            counts["sequences"] += len(rows.sequences.ids)
            counts["slots"] += rows.num_rows * length
            labels.update(rows.sequences.labels.tolist())
        del labels[UNLABELLED]
        counts |= {f"label_{label}": count for label, count in sorted(labels.items())}
        return writer.finish(name, counts)


def _chunks(members: list[list[int]]) -> Iterator[list[list[int]]]:
    for begin in range(0, len(members), ROWS_PER_BATCH):
        yield members[begin : begin + ROWS_PER_BATCH]
