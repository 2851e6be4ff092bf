"""One contract for every stage: planned tasks, each making whole shards, then one manifest.

A stage is planned before any work starts: a task is a pure function of the configuration and the
inputs, never of the number of workers. Each task leaves a completion record, so that a stage that
was killed starts again where it was; the manifest is written last, and the records go.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from configs.schema import digest
from preprocessing.executor import run_tasks
from preprocessing.progress import Progress
from preprocessing.storage import (
    MANIFEST,
    InputError,
    Manifest,
    Shard,
    exclusive,
    remove_temporaries,
    write_json,
)

_RECORDS = ".records"


@dataclass(frozen=True)
class Made:
    """What one task made: its shards, what it rejected, and facts for the manifest."""

    shards: tuple[Shard, ...]
    rejects: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, int] = field(default_factory=dict)


class Stage(Protocol):
    """What a stage says of itself. ``Task`` values are picklable; ``function`` is a module's."""

    @property
    def name(self) -> str:
        """The stage's name, as in ``lexmill <name>``."""

    @property
    def directory(self) -> Path:
        """Where its shards and its manifest go."""

    def configuration(self) -> Any:
        """Plain values that decide the bytes of the output."""

    def inputs(self) -> Mapping[str, str]:
        """Digests of the inputs by name."""

    def plan(self) -> Sequence[Any]:
        """The tasks, in the order of their shards."""

    @property
    def function(self) -> Callable[[Any], Made]:
        """What does one task, in any process."""

    def finish(self, made: Sequence[Made]) -> Mapping[str, Any]:
        """Facts for the manifest; raises InputError where the result as a whole is no good."""


@dataclass(frozen=True)
class Outcome:
    """What running a stage came to."""

    stage: str
    directory: Path
    manifest: Manifest
    status: Literal["made", "up to date"]
    tasks_done: int


def run_stage(
    stage: Stage, *, workers: int, overwrite: bool = False, quiet: bool = False
) -> Outcome:
    """Bring a stage's directory up to date.

    Raises:
        InputError: the directory holds the output of another configuration (and ``overwrite`` is
            not set), an input is bad, the disk is full, or another process writes there.
    """
    directory = stage.directory
    configuration, inputs = _plain(stage.configuration()), dict(stage.inputs())
    with exclusive(directory):
        remove_temporaries(directory)
        if (directory / MANIFEST).exists():
            manifest = Manifest.read(directory)
            changes = differences(manifest, configuration, inputs)
            if not changes and _all_there(directory, manifest.shards):
                shutil.rmtree(directory / _RECORDS, ignore_errors=True)  # cut off while going
                return Outcome(stage.name, directory, manifest, "up to date", 0)
            if changes and not overwrite:
                raise InputError(
                    f"{directory}: holds the output of '{stage.name}' made differently:\n  "
                    + "\n  ".join(changes)
                    + "\nUse another directory or name, or --overwrite to make it anew"
                )
            _clear(directory)
        _begin(directory, digest([stage.name, configuration, inputs]))
        tasks = stage.plan()
        done = {
            index: made
            for index in range(len(tasks))
            if (made := _read_record(directory, index)) is not None
        }
        missing = [index for index in range(len(tasks)) if index not in done]
        work = functools.partial(_run_and_record, stage.function, directory)
        with Progress(stage.name, len(tasks), quiet=quiet) as progress:
            progress.advance(len(done))
            jobs = [(index, tasks[index]) for index in missing]
            for position, made in run_tasks(work, jobs, workers):
                done[missing[position]] = made
                progress.advance(1)
        ordered = [done[index] for index in range(len(tasks))]
        manifest = Manifest(
            stage=stage.name,
            configuration=configuration,
            inputs=inputs,
            shards=tuple(shard for made in ordered for shard in made.shards),
            rejects=_sum(made.rejects for made in ordered),
            facts=_plain(stage.finish(ordered)),
        )
        manifest.write(directory)
        shutil.rmtree(directory / _RECORDS)
        return Outcome(stage.name, directory, Manifest.read(directory), "made", len(missing))


def differences(
    manifest: Manifest, configuration: Any, inputs: Mapping[str, str] | None
) -> list[str]:
    """What a manifest was made with, against what is asked for now: a sentence a key."""
    changes = [
        f"{path}: {_show(old)} then, {_show(new)} now"
        for path, old, new in _compare("", manifest.configuration, _plain(configuration))
    ]
    if inputs is not None:
        for name in sorted({*manifest.inputs, *inputs}):
            if manifest.inputs.get(name) != inputs.get(name):
                what = (
                    "is new"
                    if name not in manifest.inputs
                    else "is gone"
                    if name not in inputs
                    else "has changed"
                )
                changes.append(f"the input {name} {what}")
    return changes


def _compare(path: str, old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            change
            for key in sorted({*old, *new})
            for change in _compare(f"{path}.{key}" if path else key, old.get(key), new.get(key))
        ]
    return [] if old == new else [(path, old, new)]


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _plain(value: Any) -> Any:
    """As JSON gives it back, so that it compares with what a manifest holds."""
    return json.loads(json.dumps(value))


def _all_there(directory: Path, shards: Sequence[Shard]) -> bool:
    paths = [(directory / shard.name, shard.size) for shard in shards]
    return all(path.exists() and path.stat().st_size == size for path, size in paths)


def _clear(directory: Path) -> None:
    """Remove a stage's output.

    The manifest goes first, since what is not whole must not look whole; the records' directory
    stays, since it says that the rest is ours.
    """
    records = directory / _RECORDS
    records.mkdir(exist_ok=True)
    (records / "plan.json").unlink(missing_ok=True)
    (directory / MANIFEST).unlink(missing_ok=True)
    for path in sorted([*directory.iterdir(), *records.iterdir()]):
        if path.is_dir() and path != records:
            shutil.rmtree(path)
        elif path.name != ".lock" and path != records:
            path.unlink()


def _begin(directory: Path, plan: str) -> None:
    """Keep the records of an interrupted run of the same plan; clear those of another one."""
    path = directory / _RECORDS / "plan.json"
    if path.exists() and json.loads(path.read_text()) == plan:
        return
    foreign = sorted(entry.name for entry in directory.iterdir() if entry.name != ".lock")
    if foreign and _RECORDS not in foreign:
        raise InputError(
            f"{directory}: holds files that are not ours ({', '.join(foreign[:3])}); "
            "give corpus.directory another place"
        )
    _clear(directory)
    write_json(path, plan)


def _record_path(directory: Path, index: int) -> Path:
    return directory / _RECORDS / f"task-{index:05d}.json"


def _read_record(directory: Path, index: int) -> Made | None:
    try:
        plain = json.loads(_record_path(directory, index).read_text())
    except FileNotFoundError:
        return None
    shards = tuple(Shard(**shard) for shard in plain["shards"])
    made = Made(shards, plain["rejects"], plain["facts"])
    return made if _all_there(directory, shards) else None


def _run_and_record(function: Callable[[Any], Made], directory: Path, job: tuple[int, Any]) -> Made:
    index, task = job
    made = function(task)
    write_json(_record_path(directory, index), dataclasses.asdict(made))
    return made


def _sum(tables: Any) -> dict[str, int]:
    sums: dict[str, int] = {}
    for table in tables:
        for name, count in table.items():
            sums[name] = sums.get(name, 0) + count
    return dict(sorted(sums.items()))
