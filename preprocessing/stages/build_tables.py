"""counts and tables: what corruptions look up, made before the examples that need it.

*counts* reads the training tokens, one task a shard; *tables* puts together what was found. There
is one pair of them for every table that an examples set asks for, and none where none does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.schema import to_plain
from preprocessing.settings import Preparation
from preprocessing.stage import DigestedInputs, Made
from preprocessing.storage import Manifest, file_digest, manifest_digest, shard_name
from preprocessing.tables.base import Wanted
from preprocessing.tables.files import read_array, write_array
from preprocessing.tokens import TokenStore, token_digests
from preprocessing.vocabulary import Vocabulary

_BYTES_A_VALUE = 8


@dataclass(frozen=True)
class CountTask:
    """The documents of one token shard, the ``number``-th."""

    tokens: Path
    tokenizer: Path
    directory: Path
    documents: range
    number: int
    wanted: Wanted


@dataclass(frozen=True)
class TableTask:
    """All that was counted, by the number of the token shard: array by name."""

    tokens: Path
    tokenizer: Path
    directory: Path
    counts: tuple[Mapping[str, Path], ...]
    wanted: Wanted


class CountTokens(DigestedInputs):
    """The stage for one table, as :func:`preprocessing.stage.run_stage` sees it."""

    name = "counts"

    def __init__(self, preparation: Preparation, wanted: Wanted) -> None:
        self._tokens = preparation.tokens_directory
        self._tokenizer = preparation.tokenizer_directory
        self._wanted = wanted
        self.directory = preparation.counts_directory(wanted)

    def configuration(self) -> Any:
        """The table's."""
        return _plain(self._wanted)

    def inputs(self) -> Mapping[str, str]:
        """The tokens and their tokenizer."""
        return token_digests(self._tokens, self._tokenizer, self._wanted.sources)

    def plan(self) -> Sequence[CountTask]:
        """One task a shard of training tokens."""
        ranges = _store(self._tokens, self._wanted).shard_ranges
        return [
            CountTask(
                self._tokens, self._tokenizer, self.directory, documents, number, self._wanted
            )
            for number, documents in enumerate(ranges)
        ]

    def expected_bytes(self) -> int:
        """As if each shard held all that the table will."""
        values = self._wanted.table.expected_values(Vocabulary.load(self._tokenizer))
        return _BYTES_A_VALUE * values * len(_store(self._tokens, self._wanted).shards)

    @property
    def function(self) -> Callable[[CountTask], Made]:
        """Count one shard."""
        return count_shard

    def finish(self, made: Sequence[Made]) -> Mapping[str, Any]:
        """Nothing to add."""
        return {}


class BuildTable(DigestedInputs):
    """The stage for one table, as :func:`preprocessing.stage.run_stage` sees it."""

    name = "tables"

    def __init__(self, preparation: Preparation, wanted: Wanted) -> None:
        self._tokens = preparation.tokens_directory
        self._tokenizer = preparation.tokenizer_directory
        self._counts = preparation.counts_directory(wanted)
        self._wanted = wanted
        self.directory = preparation.table_directory(wanted)

    def configuration(self) -> Any:
        """The table's."""
        return _plain(self._wanted)

    def inputs(self) -> Mapping[str, str]:
        """What was counted, and of what; other files that the table is made of."""
        return {
            **token_digests(self._tokens, self._tokenizer, self._wanted.sources),
            "counts": manifest_digest(self._counts),
            **{f"file {path.name}": file_digest(path) for path in self._wanted.table.files()},
        }

    def plan(self) -> Sequence[TableTask]:
        """One task."""
        counts: dict[int, dict[str, Path]] = {}
        for shard in Manifest.read(self._counts).shards:
            counts.setdefault(shard.number, {})[shard.split] = self._counts / shard.name
        in_order = tuple(counts[number] for number in sorted(counts))
        return [TableTask(self._tokens, self._tokenizer, self.directory, in_order, self._wanted)]

    def expected_bytes(self) -> int:
        """The table's forecast."""
        values = self._wanted.table.expected_values(Vocabulary.load(self._tokenizer))
        return _BYTES_A_VALUE * values

    @property
    def function(self) -> Callable[[TableTask], Made]:
        """Put the counts together."""
        return build_table

    def finish(self, made: Sequence[Made]) -> Mapping[str, Any]:
        """Where each array is, by its name."""
        return {"arrays": {shard.split: shard.name for one in made for shard in one.shards}}


def _plain(wanted: Wanted) -> dict[str, Any]:
    plain = {
        "table": wanted.table.name,
        "settings": to_plain(wanted.table),
        "arrays": list(wanted.table.arrays()),
    }
    return plain if wanted.sources is None else {**plain, "sources": list(wanted.sources)}


def _store(tokens: Path, wanted: Wanted) -> TokenStore:
    return TokenStore(tokens, "train", wanted.sources)


def count_shard(task: CountTask) -> Made:
    """Write what one token shard comes to."""
    vocabulary = Vocabulary.load(task.tokenizer)
    store = _store(task.tokens, task.wanted)
    counts = task.wanted.table.count(vocabulary, store, task.documents)
    return Made(
        tuple(
            write_array(task.directory, shard_name(name, task.number), name, values)
            for name, values in counts.items()
        )
    )


def build_table(task: TableTask) -> Made:
    """Write the arrays of a table."""
    counts = ({name: read_array(path) for name, path in one.items()} for one in task.counts)
    vocabulary, table = Vocabulary.load(task.tokenizer), task.wanted.table
    arrays = table.build(vocabulary, _store(task.tokens, task.wanted), counts)
    assert tuple(arrays) == table.arrays()
    return Made(
        tuple(
            write_array(task.directory, shard_name(name, 0), name, values)
            for name, values in arrays.items()
        )
    )


def table_arrays(directory: Path) -> dict[str, Path]:
    """The files of a finished table by the names of its arrays."""
    files: Mapping[str, str] = Manifest.read(directory).facts["arrays"]
    return {name: directory / file for name, file in files.items()}
