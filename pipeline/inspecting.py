"""``lexmill inspect RUN --step N``: the exact batch of a step, and the documents it came from.

Steps are counted as ``metrics.jsonl`` counts them, from 1, and the fingerprint is the one that
stands there. Nothing is trained for it, and no checkpoint is needed: the batch of a step is a
function of the recipe and the examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.text import Text

from configs.schema import load
from pipeline.data import Found, OpenRows, TaskSource, fingerprint
from pipeline.fitting import keep_targets
from pipeline.opening import open_data
from pipeline.phases import Timeline
from pipeline.settings import Run, decode_run
from pipeline.training.checkpoints.checkpoint import CHECKPOINTS, CONFIG_FILE, Checkpoints
from pipeline.training.skips import Skips, read_skips
from pipeline.training.tracking import read_metrics
from preprocessing.arrangement import single_row
from preprocessing.building import RowMaker
from preprocessing.inspection.examples import LEGEND, plain_row, render
from preprocessing.inspection.outputs import is_configuration
from preprocessing.inspection.terminal import on_a_line, open_console
from preprocessing.layouts.base import Cut, document_of
from preprocessing.settings import Preparation
from preprocessing.stages.tokenize import Task, Tokenize
from preprocessing.storage import InputError, open_shard
from preprocessing.tokens import TokenStore, token_digests
from preprocessing.vocabulary import Vocabulary

Result = dict[str, Any]


def show_step(target: str, overrides: Sequence[str], step: int, *, as_json: bool) -> Result:
    """Print the batch of a step, or give it back as plain values.

    Args:
        target: a recipe, or the output directory of a run.
        step: as in ``metrics.jsonl``, from 1.

    Raises:
        InputError: there is no such run or step, or its data is not whole.
        ConfigError: the configuration is no good.
    """
    plain = read_step(_find_run(target, overrides), step)
    if as_json:
        return plain
    console = open_console()
    console.print(_title(plain), style="bold")
    console.print(LEGEND, style="dim")
    if plain["trained_fingerprint"] not in (None, plain["fingerprint"]):
        console.print(
            "this is not what the run was trained on in that step: its data or its recipe have "
            "changed since",
            style="bold red",
        )
    for micro_batch in plain["micro_batches"]:
        console.print(f"micro-batch {micro_batch['number']}", style="bold")
        for row in micro_batch["rows"]:
            console.print(render(row).append_text(_render_documents(row)), end="")
    return {name: value for name, value in plain.items() if name != "micro_batches"}


def read_step(run: Run, step: int) -> Result:
    """The batch of a step as plain values.

    Raises:
        InputError: there is no such step, it is passed over, or its data is not whole.
    """
    if not 1 <= step <= run.total_steps:
        raise InputError(f"{run.name}: step {step} is none of its steps 1 to {run.total_steps}")
    skips = Skips(run.train.skip, read_skips(run.output.directory, ()))
    if end := skips.end(step - 1):
        raise InputError(f"{run.name}: step {step} is passed over, and so are those up to {end}")
    timeline = Timeline(run.phases, run.schedule)
    place, position = timeline.place(step - 1), timeline.position(step - 1)
    trained = [objective.kind for objective in run.objectives]
    source = keep_targets(open_data(run), trained).phases[place.phase]
    reader, rows = source.open(), run.train.micro_batch_rows
    shown = _Rows(run.preparation, place.phase, run)
    micro_batches, prints = [], 0
    for number in range(timeline.stretch(step - 1).batch_rows // rows):
        begin = position + number * rows
        arrays = reader.arrays(range(begin, begin + rows))
        prints += fingerprint(arrays)
        of_row = {
            int(at): (found, int(row))
            for found in reader.find(np.arange(begin, begin + rows))
            for row, at in zip(found.rows, found.places, strict=True)
        }
        micro_batches.append(
            {
                "number": number,
                "rows": [shown.plain(single_row(arrays, at), *of_row[at]) for at in sorted(of_row)],
            }
        )
    recorded = [
        record.get("fingerprint")
        for record in read_metrics(run.output.directory, ("train",))
        if record["step"] == step
    ]
    task = source.names[source.order.task(place.step)] if isinstance(source, TaskSource) else None
    return {
        "step": step,
        "phase": place.phase,
        "task": task,
        "position": position,
        "fingerprint": prints,
        "trained_fingerprint": recorded[-1] if recorded else None,
        "micro_batches": micro_batches,
    }


def _find_run(target: str, overrides: Sequence[str]) -> Run:
    """The run of a recipe, or of an output directory as its newest checkpoint tells it."""
    if is_configuration(target):
        return decode_run(load(target, overrides))
    newest = Checkpoints(Path(target) / CHECKPOINTS).latest()
    if newest is None:
        raise InputError(
            f"{target}: neither a recipe (.yaml) nor the output directory of a run with a "
            "checkpoint in it"
        )
    return decode_run(load(newest / CONFIG_FILE, overrides))


class _Rows:
    """Rows of the examples sets of a phase, as text and with their documents."""

    def __init__(self, preparation: Preparation, phase: int, run: Run) -> None:
        self._vocabulary = Vocabulary.load(preparation.tokenizer_directory)
        self._origins = {name: _Origins(preparation, name) for name in run.phases[phase].sets}

    def plain(self, arrays: Any, found: Found, row: int) -> Result:
        """One row of a micro-batch."""
        rows, source = found.of.rows, found.of.source
        copy = found.epoch % len(rows.num_rows)
        stored = rows.read(copy, np.array([row])).sequences
        told = plain_row(arrays, rows, stored, self._vocabulary)
        origins = self._origins[source.name]
        for sequence in told["sequences"]:
            sequence["documents"] = origins.of(found.of, sequence["id"], copy)
        return {
            "examples": origins.name,
            "split": source.split,
            "row": row,
            "epoch": found.epoch,
            "copy": copy,
            **told,
        }


@dataclass(frozen=True)
class _Piece:
    """Tokens of a document that became part of a sequence."""

    document: int
    start: int
    stop: int


class _Origins:
    """Where the sequences of an examples set come from.

    They are cut once more from the tokens, shard by shard, which gives the pieces of each.
    """

    def __init__(self, preparation: Preparation, name: str) -> None:
        self.name = name
        self._preparation = preparation
        self._config = preparation.examples[name]
        self._cut = lru_cache(maxsize=8)(self._cut_shard)
        self._ids = lru_cache(maxsize=1024)(self._id)
        self._known: bool | None = None
        self._tasks: dict[tuple[str, int], Task] | None = None
        self._maker: RowMaker | None = None

    def of(self, rows: OpenRows, sequence: int, copy: int) -> list[Result] | None:
        """The documents of a sequence; None where the tokens are not there as they were."""
        if self._known is None:
            self._known = self._same_tokens(rows)
        if not self._known:
            return None
        return [
            {
                "document": piece.document,
                "tokens": [piece.start, piece.stop],
                **self._ids(piece.document),
            }
            for piece in self._pieces(rows, sequence, copy)
        ]

    def _same_tokens(self, rows: OpenRows) -> bool:
        """Whether the tokens are those that the examples were made of."""
        preparation, sources = self._preparation, self._config.sources
        try:
            now = token_digests(
                preparation.tokens_directory, preparation.tokenizer_directory, sources
            )
        except InputError:
            return False
        if now["tokens"] != rows.rows.manifest.inputs.get("tokens"):
            return False
        self._store = TokenStore(preparation.tokens_directory, rows.source.split, sources)
        return True

    def _pieces(self, rows: OpenRows, sequence: int, copy: int) -> list[_Piece]:
        if self._maker is None:
            vocabulary = Vocabulary.load(self._preparation.tokenizer_directory)
            seed, tables = self._preparation.seed, rows.rows.context.tables
            self._maker = RowMaker(self._config, vocabulary, self._store, seed, tables)
        cut, places = self._cut(self._shard(document_of(sequence)), copy)
        place = places[sequence]
        spans = cut.pieces
        return [
            _Piece(int(spans.documents[at]), int(spans.starts[at]), int(spans.stops[at]))
            for at in range(int(cut.offsets[place]), int(cut.offsets[place + 1]))
        ]

    def _shard(self, document: int) -> int:
        ranges = self._store.shard_ranges
        return next(number for number, own in enumerate(ranges) if document in own)

    def _cut_shard(self, shard: int, copy: int) -> tuple[Cut, dict[int, int]]:
        assert self._maker is not None
        cut = self._maker.cut(self._store.shard_ranges[shard], copy)
        return cut, {int(one): place for place, one in enumerate(cut.ids)}

    def _id(self, document: int) -> Result:
        """The id of a document, and the raw file and place it was read from."""
        shard = self._shard(document)
        before = self._store.shard_ranges[shard].start
        token_shard = self._store.shards[shard]
        identity = _row(self._preparation.tokens_directory / token_shard.name, document - before)
        unknown = {"id": identity.hex(), "source": None, "offset": None}
        try:
            if self._tasks is None:
                plan = Tokenize(self._preparation).plan()
                self._tasks = {(task.split, task.number): task for task in plan}
            task = self._tasks[token_shard.split, token_shard.number]
            reader = open_shard(task.source)
            for number in task.batches:
                batch = reader.get_batch(number)
                for place in np.flatnonzero(_equal(batch.column("id"), identity))[:1]:
                    return {
                        "id": identity.hex(),
                        "source": batch.column("source")[int(place)].as_py(),
                        "offset": batch.column("offset")[int(place)].as_py(),
                    }
        except (InputError, KeyError):
            return unknown  # the documents may have been removed when the tokens stood
        return unknown


def _row(path: Path, row: int) -> bytes:
    """The id of a row of a token shard."""
    reader = open_shard(path)
    first: int = reader.get_batch(0).num_rows
    identity: bytes = reader.get_batch(row // first).column("id")[row % first].as_py()
    return identity


def _equal(column: pa.Array, identity: bytes) -> list[bool]:
    return [one == identity for one in column.to_pylist()]


def _title(plain: Mapping[str, Any]) -> str:
    task = f", task {plain['task']}" if plain["task"] else ""
    return (
        f"step {plain['step']:,}: phase {plain['phase']}{task}, rows from position "
        f"{plain['position']:,} on, fingerprint {plain['fingerprint']}"
    )


def _render_documents(row: Mapping[str, Any]) -> Text:
    text = Text()
    for number, sequence in enumerate(row["sequences"], 1):
        if sequence["documents"] is None:
            text.append(f"  from {number}: the tokens have changed since, or are gone\n", "dim")
        for one in sequence["documents"] or ():
            begin, end = one["tokens"]
            where = "a file that is not known any more"
            if one["source"] is not None:
                where = f"{on_a_line(one['source'])} at {one['offset']:,}"
            text.append(
                f"  from {number}: {row['examples']}, document {one['document']:,} "
                f"({one['id']}), tokens {begin:,} to {end:,}, {where}\n",
                "dim",
            )
    return text
