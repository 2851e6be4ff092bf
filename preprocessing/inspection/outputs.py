"""What a path or a configuration names, and how its rows are read.

Every record batch is checked before anything looks into it: a shard may be damaged where no
checksum has been compared yet, and damage must end in a sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from configs.schema import find, load
from preprocessing.places import RemotePath, to_place
from preprocessing.settings import Preparation, decode_preparation
from preprocessing.storage import MANIFEST, InputError, Manifest, Shard, open_shard
from preprocessing.vocabulary import Vocabulary

Kind = Literal["documents", "tokens", "examples", "other"]
_MOST_BELOW = 4  # stage directories lie at most so deep in a corpus directory


@dataclass(frozen=True)
class Output:
    """The output of a stage, or one shard of it.

    Attributes:
        name: the stage, or the examples set.
        directory: where the shards' names begin.
        manifest: None for a shard that stands alone.
        shards: those to look at, in order.
    """

    name: str
    directory: Path
    manifest: Manifest | None
    shards: tuple[Shard, ...]

    def paths(self) -> list[Path]:
        """The files of the shards."""
        return [self.directory / shard.name for shard in self.shards]

    @property
    def kind(self) -> Kind:
        """What the rows are.

        Raises:
            InputError: damaged or missing shard.
        """
        arrow = [path for path in self.paths() if path.suffix == ".arrow"]
        return kind_of(open_shard(arrow[0]).schema) if arrow else "other"


def kind_of(schema: pa.Schema) -> Kind:
    """What rows of a schema are."""
    names = set(schema.names)
    if {"id", "text", "source"} <= names:
        return "documents"
    if {"ids", "sentence_lengths"} <= names:
        return "tokens"
    if {"ids", "sequences", "first_lengths"} <= names:
        return "examples"
    return "other"


# -- what is named ---------------------------------------------------------------------------------


def is_configuration(target: str) -> bool:
    """Whether a name is that of a recipe."""
    return target.endswith((".yaml", ".yml"))


def named(target: str, what: str | None, overrides: Sequence[str]) -> list[Output]:
    """The outputs behind a path, or behind a configuration and the name of one of its stages.

    Raises:
        InputError: there is nothing, or it is not ours.
        ConfigError: the configuration is no good.
    """
    if is_configuration(target):
        preparation = decode_preparation(load(find(target), overrides))
        return _configured(preparation, what)
    if what is not None or overrides:
        raise InputError(
            f"{what or overrides[0]}: stages and changes are named behind a configuration "
            f"(a file that ends in .yaml); {target} is a path"
        )
    try:
        place = to_place(target)
    except ValueError as error:
        raise InputError(f"{target}: {error}") from None
    if place.suffix == ".arrow":
        return [_shard(place)]
    if place.name == MANIFEST:
        place = place.parent
    if (place / MANIFEST).exists():
        return [_whole(place)]
    if not place.exists():
        raise InputError(f"{target}: there is nothing of this name")
    if not place.is_dir():
        raise InputError(
            f"{target}: give a stage's directory, a {MANIFEST}, a shard (.arrow) or a "
            "configuration (.yaml)"
        )
    found = sorted(
        path.parent
        for path in place.rglob(MANIFEST)
        if len(path.relative_to(place).parts) <= _MOST_BELOW
    )
    if not found:
        raise InputError(f"{target}: no stage has finished anything in or below this directory")
    return [_whole(directory) for directory in found]


def stage_directories(preparation: Preparation) -> dict[str, Path]:
    """Where each stage of a configuration leaves its output, in the order of the road."""
    corpus = preparation.corpus
    return {
        "ingest": preparation.documents_directory,
        **({"clean": preparation.filtered_directory} if corpus.clean else {}),
        "signatures": preparation.signatures_directory,
        "matches": preparation.matches_directory,
        "deduplicate": preparation.clean_directory,
        "tokenizer": preparation.tokenizer_directory,
        "tokenize": preparation.tokens_directory,
        **{
            f"{stage} {table.directory_name}": directory(table)
            for table in preparation.tables
            for stage, directory in (
                ("counts", preparation.counts_directory),
                ("tables", preparation.table_directory),
            )
        },
        **{
            f"examples {name}": preparation.examples_directory(name)
            for name in preparation.examples
        },
    }


def _configured(preparation: Preparation, what: str | None) -> list[Output]:
    directories = stage_directories(preparation)
    if what is None:
        found = [
            _whole(directory, name)
            for name, directory in directories.items()
            if (directory / MANIFEST).exists()
        ]
        if not found:
            raise InputError(
                f"{preparation.corpus.directory}: no stage of this configuration has finished; "
                "lexmill ingest is the first"
            )
        return found
    if what == "examples" and preparation.examples:
        what = f"examples {next(iter(preparation.examples))}"
    elif what not in directories:
        what = f"examples {what}"
    if what not in directories:
        known = [name.removeprefix("examples ") for name in directories]
        raise InputError(
            f"{what.removeprefix('examples ')}: neither a stage nor an examples set of this "
            f"configuration; there are {', '.join(known)}"
        )
    return [_whole(directories[what], what)]


def _whole(directory: Path, name: str | None = None) -> Output:
    manifest = Manifest.read(directory)
    return Output(name or manifest.stage, directory, manifest, manifest.shards)


def _shard(path: Path) -> Output:
    """One shard, with the manifest that lists it where there is one."""
    for directory in list(path.absolute().parents)[:3]:
        if not (directory / MANIFEST).exists():
            continue
        manifest = Manifest.read(directory)
        name = path.absolute().relative_to(directory).as_posix()
        own = tuple(shard for shard in manifest.shards if shard.name == name)
        if own:
            return Output(manifest.stage, directory, manifest, own)
        break
    if not path.exists():
        raise InputError(f"{path}: there is no such file")
    reader = Batches(path)
    lone = Shard(path.name, reader.num_rows, path.stat().st_size, "")
    return Output("shard", path.parent, None, (lone,))


# -- reading ---------------------------------------------------------------------------------------


class Batches:
    """The record batches of a shard, each checked before it is given out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader = open_shard(path)
        self.schema: pa.Schema = self._reader.schema
        self.num_batches: int = self._reader.num_record_batches

    @property
    def num_rows(self) -> int:
        """Rows of the shard: all batches but the last are equally long."""
        if not self.num_batches:
            return 0
        last = self[self.num_batches - 1].num_rows
        return self.rows_per_batch * (self.num_batches - 1) + int(last)

    @property
    def rows_per_batch(self) -> int:
        """Rows of every batch but the last."""
        return int(self[0].num_rows) if self.num_batches else 1

    def __getitem__(self, index: int) -> pa.RecordBatch:
        try:
            batch = self._reader.get_batch(index)
            batch.validate(full=True)
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"{self._path}: damaged in record batch {index}: {str(error).splitlines()[0]}; "
                "delete it and run the stage again"
            ) from None
        return batch

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return (self[index] for index in range(self.num_batches))


@dataclass(frozen=True)
class Selection:
    """Which rows are wanted.

    Attributes:
        rows: of those that the rest of the selection leaves, counted from 0.
        split: None means the first one of the manifest, or ``train``.
        id: hexadecimal beginning of the ids of documents.
        grep: what a document's text must contain.
        epoch: of examples; what the loader shows then.
    """

    rows: range
    split: str | None = None
    id: str | None = None
    grep: str | None = None
    epoch: int | None = None


@dataclass(frozen=True)
class Row:
    """One row: its number in the split, or in the shard that was named, and its values."""

    number: int
    shard: str
    values: dict[str, Any]


def select_split(output: Output, split: str | None) -> tuple[Shard, ...]:
    """The shards of one split: the one that is asked for, ``train``, or the first.

    Raises:
        InputError: there is no such split.
    """
    splits = list(dict.fromkeys(shard.split for shard in output.shards))
    if split is None:
        split = "train" if "train" in splits else splits[0] if splits else ""
    if splits and split not in splits:
        raise InputError(f"{output.directory}: no split '{split}' here; there are {splits}")
    return tuple(shard for shard in output.shards if shard.split == split)


def read_rows(output: Output, selection: Selection) -> Iterator[Row]:
    """The selected rows in order; shards and batches that hold none are not read.

    Raises:
        InputError: a damaged shard, or nothing to search in.
    """
    searching = selection.id is not None or selection.grep is not None
    # An id may stand in any split; everything else is looked for in one.
    anywhere = selection.id is not None and selection.split is None
    shards = output.shards if anywhere else select_split(output, selection.split)
    seen = 0  # rows that the selection leaves
    first: dict[str, int] = {}  # row of the next shard, by split
    for shard in shards:
        start_row = first.get(shard.split, 0)
        first[shard.split] = start_row + shard.rows
        if not searching and seen + shard.rows <= selection.rows.start:
            seen += shard.rows
            continue
        batches = Batches(output.directory / shard.name)
        size = batches.rows_per_batch
        skipped = 0 if searching else max(0, selection.rows.start - seen) // size
        seen += skipped * size
        for index in range(skipped, batches.num_batches):
            if seen >= selection.rows.stop:
                return
            batch = batches[index]
            for place in matching(output, batch, selection):
                if seen in selection.rows:
                    values = batch.slice(place, 1).to_pylist()[0]
                    yield Row(start_row + index * size + place, shard.name, values)
                seen += 1


def matching(output: Output, batch: pa.RecordBatch, selection: Selection) -> list[int]:
    """The places in a batch that the selection asks for, whatever ``rows`` says."""
    places = list(range(batch.num_rows))
    if selection.id is not None:
        if "id" not in batch.schema.names:
            raise InputError(f"{output.directory}: its rows have no ids to look for")
        ids = batch.column("id").to_pylist()
        places = [place for place in places if ids[place].hex().startswith(selection.id)]
    if selection.grep is not None:
        if "text" not in batch.schema.names:
            raise InputError(
                f"{output.directory}: --grep looks into the text of documents; these are "
                f"{output.kind}"
            )
        found = pc.match_substring(batch.column("text"), selection.grep).to_pylist()
        places = [place for place in places if found[place]]
    return places


def find_vocabulary(output: Output) -> Vocabulary | None:
    """The tokenizer that the rows were made with; None where it is not there (any more)."""
    wanted = output.manifest.facts.get("tokenizer") if output.manifest else None
    if wanted is None or isinstance(output.directory, RemotePath):
        return None
    for parent in list(output.directory.absolute().parents)[:3]:
        folder = parent / "tokenizers"
        for candidate in sorted(folder.iterdir()) if folder.is_dir() else ():
            try:
                vocabulary = Vocabulary.load(candidate)
            except InputError:
                continue  # another tokenizer, unfinished
            if vocabulary.digest == wanted:
                return vocabulary
    return None


def pieces(vocabulary: Vocabulary | None, ids: Sequence[int]) -> list[str]:
    """Tokens as text; as numbers where the vocabulary is not known."""
    return [str(i) for i in ids] if vocabulary is None else vocabulary.tokens(ids)
