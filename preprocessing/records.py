"""Completion records: what finished tasks made, kept beside the shards until the manifest stands.

.records/plan.json         digest of stage, configuration and inputs that the tasks belong to
.records/slices.json       into how many slices the tasks were last dealt, if they were
.records/task-00000.json   what the task made
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from preprocessing.storage import (
    LOCK,
    MANIFEST,
    InputError,
    Shard,
    remove_tree,
    write_json,
)

RECORDS = ".records"


@dataclass(frozen=True)
class Made:
    """What one task made.

    Attributes:
        shards: in the order of the manifest.
        rejects: documents that did not get through, by reason.
        tables: counts by name and by what they are of, as
            ``{"documents by language": {"en": 12}}``; the manifest holds their sums.
        facts: whatever else :meth:`Stage.finish` or :meth:`Stage.inputs_read` want to know.
    """

    shards: tuple[Shard, ...]
    rejects: Mapping[str, int] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


def read_plan(directory: Path) -> str | None:
    """The digest of the plan that is under way here."""
    plan: str | None = _read(directory / RECORDS / "plan.json")
    return plan


def begin(directory: Path, plan: str) -> None:
    """Keep the records of an interrupted run of the same plan; clear those of another one.

    Raises:
        InputError: there are files here that no stage made.
    """
    if read_plan(directory) == plan:
        return
    foreign = sorted(entry.name for entry in directory.iterdir() if entry.name != LOCK)
    if foreign and RECORDS not in foreign:
        raise InputError(
            f"{directory}: holds files that are not ours ({', '.join(foreign[:3])}); "
            "give corpus.directory another place"
        )
    clear(directory)
    write_json(directory / RECORDS / "plan.json", plan)


def clear(directory: Path) -> None:
    """Remove a stage's output.

    The manifest goes first, since what is not whole must not look whole; the records' directory
    stays, since it says that the rest is ours.
    """
    records = directory / RECORDS
    records.mkdir(exist_ok=True)
    (records / "plan.json").unlink(missing_ok=True)
    (directory / MANIFEST).unlink(missing_ok=True)
    for path in sorted([*directory.iterdir(), *records.iterdir()]):
        if path.is_dir() and path not in (records, directory / LOCK):
            remove_tree(path)
        elif path.name != LOCK and path != records:
            path.unlink()


def remove(directory: Path) -> None:
    """The records are not needed any more: the manifest stands."""
    remove_tree(directory / RECORDS)


def all_there(directory: Path, shards: Sequence[Shard]) -> bool:
    """Whether every shard lies there with its size."""
    paths = [(directory / shard.name, shard.size) for shard in shards]
    return all(path.exists() and path.stat().st_size == size for path, size in paths)


def read_done(directory: Path, num_tasks: int) -> dict[int, Made]:
    """What the tasks that are finished have made, by their index."""
    return {
        index: made
        for index in range(num_tasks)
        if (made := _read_record(directory, index)) is not None
    }


def write_record(directory: Path, index: int, made: Made) -> None:
    """A task is finished once this returns."""
    write_json(_record_path(directory, index), dataclasses.asdict(made))


def write_slices(directory: Path, count: int) -> None:
    """Remember into how many slices the tasks are dealt, to name those that are missing."""
    if read_slices(directory) != count:
        write_json(directory / RECORDS / "slices.json", count)


def read_slices(directory: Path) -> int | None:
    """Into how many slices the tasks were last dealt."""
    count: int | None = _read(directory / RECORDS / "slices.json")
    return count


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


def _record_path(directory: Path, index: int) -> Path:
    return directory / RECORDS / f"task-{index:05d}.json"


def _read_record(directory: Path, index: int) -> Made | None:
    plain = _read(_record_path(directory, index))
    if plain is None:
        return None
    shards = tuple(Shard(**shard) for shard in plain["shards"])
    made = Made(shards, plain["rejects"], plain["tables"], plain["facts"])
    return made if all_there(directory, shards) else None
