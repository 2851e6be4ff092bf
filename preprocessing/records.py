"""Completion records: what finished tasks made, kept beside the shards until the manifest stands.

.records/plan.json         digest of stage, configuration and inputs that the tasks belong to;
                           null while what is left of another plan is cleared away
.records/slices.json       into how many slices the tasks were last dealt, if they were
.records/task-00000.json   what the task made, and of which plan it was
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from preprocessing.places import RemotePath
from preprocessing.storage import (
    LOCK,
    MANIFEST,
    InputError,
    Shard,
    remove_tree,
    write_json,
)

RECORDS = ".records"
_TASK = re.compile(r"task-(\d{5,})\.json")


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
    if foreign:
        clear(directory)
    write_json(directory / RECORDS / "plan.json", plan)


def clear(directory: Path) -> None:
    """Remove a stage's output.

    The manifest goes first, since what is not whole must not look whole. A plan of nothing stays:
    it says that the rest is ours, also where a directory is there only as long as something is
    in it.
    """
    records = directory / RECORDS
    plan = records / "plan.json"
    write_json(plan, None)
    (directory / MANIFEST).unlink(missing_ok=True)
    kept = (records, plan, directory / LOCK)
    for path in sorted([*directory.iterdir(), *records.iterdir()]):
        if path in kept:
            continue
        if path.is_dir():
            remove_tree(path)
        else:
            path.unlink()


def remove(directory: Path) -> None:
    """The records are not needed any more: the manifest stands."""
    remove_tree(directory / RECORDS)


def all_there(directory: Path, shards: Sequence[Shard]) -> bool:
    """Whether every shard lies there with its size."""
    size_of = _sizes(directory)
    return all(size_of(shard.name) == shard.size for shard in shards)


def read_done(directory: Path, plan: str, indices: Iterable[int]) -> dict[int, Made]:
    """What those of the tasks have made that are finished, by their index.

    A record of another plan does not count: a worker that outlived its driver wrote it.
    """
    recorded = read_recorded(directory)
    size_of = _sizes(directory)
    done: dict[int, Made] = {}
    for index in indices:
        plain = _read(_record_path(directory, index)) if index in recorded else None
        if plain is None or plain.get("plan") != plan:
            continue
        shards = tuple(Shard(**shard) for shard in plain["shards"])
        if all(size_of(shard.name) == shard.size for shard in shards):
            done[index] = Made(shards, plain["rejects"], plain["tables"], plain["facts"])
    return done


def read_recorded(directory: Path) -> set[int]:
    """The tasks that have a record, unread."""
    try:
        names = [path.name for path in (directory / RECORDS).iterdir()]
    except FileNotFoundError:
        return set()
    return {int(match[1]) for name in names if (match := _TASK.fullmatch(name))}


def write_record(directory: Path, plan: str, index: int, made: Made) -> None:
    """A task is finished once this returns."""
    write_json(_record_path(directory, index), {"plan": plan, **dataclasses.asdict(made)})


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
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _record_path(directory: Path, index: int) -> Path:
    return directory / RECORDS / f"task-{index:05d}.json"


def _sizes(directory: Path) -> Callable[[str], int | None]:
    """How many bytes a file below has; an object store is asked once for all of them."""
    if isinstance(directory, RemotePath):
        found = directory.find()
        return lambda name: found.get(directory / name)

    def size_of(name: str) -> int | None:
        try:
            return (directory / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    return size_of
