"""examples: tokens become sequences, sequences become rows of fixed length.

*Dynamic* examples hold the plain sequences, and the loader corrupts them; *static* ones are
corrupted here, by the same functions with the same keys. Training documents are laid out once a
copy; validation sets have one copy and are never shuffled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import to_plain
from preprocessing.building import RowMaker, special_ids
from preprocessing.rows import ROWS_PER_BATCH, copy_split
from preprocessing.settings import ExamplesConfig, Preparation
from preprocessing.stage import DigestedInputs, Made
from preprocessing.storage import InputError, manifest_digest, shard_name, write_shard
from preprocessing.tokens import TokenStore
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


class BuildExamples(DigestedInputs):
    """The stage for one examples set, as :func:`preprocessing.stage.run_stage` sees it."""

    name = "examples"

    def __init__(self, preparation: Preparation, examples: str) -> None:
        self._preparation = preparation
        self._tokens = preparation.tokens_directory
        self._config = preparation.examples[examples]
        self.directory = preparation.examples_directory(examples)

    def configuration(self) -> Any:
        """The examples section and the seed."""
        return {"seed": self._preparation.seed, "examples": to_plain(self._config)}

    def inputs(self) -> Mapping[str, str]:
        """The manifest of the tokens, and the tokenizer they must have been made with.

        Raises:
            InputError: the token shards were made with another tokenizer.
        """
        vocabulary = Vocabulary.load(self._preparation.tokenizer_directory)
        made_with = TokenStore(self._tokens, "train").manifest.facts["tokenizer"]
        if made_with != vocabulary.digest:
            raise InputError(
                f"{self._tokens}: these shards were made with another tokenizer "
                f"({made_with[:8]}) than {vocabulary.directory} ({vocabulary.digest[:8]}); "
                "run tokenize again, or restore the tokenizer"
            )
        return {"tokens": manifest_digest(self._tokens), "tokenizer": vocabulary.digest}

    def plan(self) -> Sequence[Task]:
        """One task a token shard and copy."""
        return [
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
            )
            for split in TokenStore(self._tokens, "train").manifest.splits
            for copy in range(self._config.copies if split == "train" else 1)
            for number, documents in enumerate(TokenStore(self._tokens, split).shard_ranges)
        ]

    def expected_bytes(self) -> int:
        """Every token in every copy, with specials, borders and some padding."""
        manifest = TokenStore(self._tokens, "train").manifest
        tokens = {split: manifest.totals(split)["tokens"] for split in manifest.splits}
        total = sum(tokens.values()) + (self._config.copies - 1) * tokens["train"]
        width = np.dtype(Vocabulary.load(self._preparation.tokenizer_directory).id_type).itemsize
        return round(total * width * (_ROOM + _TARGETS * (self._config.mode == "static")))

    @property
    def function(self) -> Callable[[Task], Made]:
        """Build the rows of one task."""
        return build

    def finish(self, made: Sequence[Made]) -> Mapping[str, Any]:
        """What the loader must know: static shapes and special ids."""
        shards = [shard for one in made for shard in one.shards]
        copies: dict[str, set[str]] = {}
        rows: dict[str, int] = {}
        for shard in shards:
            split = shard.split.rpartition("/")[0]
            copies.setdefault(split, set()).add(shard.split)
            rows[split] = rows.get(split, 0) + shard.rows
        for split, count in rows.items():
            if count == 0:
                raise InputError(f"{self.directory}: not one example for '{split}'")
        vocabulary = Vocabulary.load(self._preparation.tokenizer_directory)
        config = self._config
        special = special_ids(vocabulary)
        return {
            "length": config.length,
            "decoder_length": config.decoder_length,
            "rows_per_batch": ROWS_PER_BATCH,
            "label": config.layout.label(),
            "static": config.mode == "static",
            "max_targets": _largest([one.facts["max_targets"] for one in made]),
            "max_sequences": max(one.facts["max_sequences"] for one in made),
            "decoder_targets": made[0].facts["decoder_targets"],
            "splits": {split: len(own) for split, own in copies.items()},
            "special": to_plain(special),
            "tables": {},
            "tokenizer": vocabulary.digest,
        }


def _largest(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    return {name: max(one[name] for one in counts) for name in counts[0]}


def build(task: Task) -> Made:
    """Write one shard of rows."""
    config = task.config
    maker = RowMaker(
        config, Vocabulary.load(task.tokenizer), TokenStore(task.tokens, task.split), task.seed
    )
    cut = maker.cut(task.documents, task.copy)
    name = shard_name(copy_split(task.split, task.copy), task.number)
    counts = {"tokens": 0, "sequences": 0, "slots": 0, "pairs_random": 0}
    with write_shard(task.directory / name, maker.schema, ROWS_PER_BATCH) as writer:
        for members in _chunks(maker.members(cut)):
            rows, batch = maker.make(cut, members, task.copy)
            writer.write(batch)
            counts["tokens"] += len(rows.sequences.tokens)
            counts["sequences"] += len(rows.sequences.ids)
            counts["slots"] += rows.num_rows * config.length
            counts["pairs_random"] += int((rows.sequences.labels == 1).sum())
        shard = writer.finish(name, counts)
    return Made((shard,), facts=maker.facts)


def _chunks(members: list[list[int]]) -> Iterator[list[list[int]]]:
    for begin in range(0, len(members), ROWS_PER_BATCH):
        yield members[begin : begin + ROWS_PER_BATCH]
