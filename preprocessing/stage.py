"""One contract for every stage: planned tasks, each making whole shards, then one manifest.

A stage is planned before any work starts: a task is a pure function of the configuration and the
inputs, never of the number of workers. Each task leaves a completion record, so that a stage that
was killed starts again where it was; the manifest is written last, and the records go.
"""

from __future__ import annotations

import abc
import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from configs.schema import digest
from preprocessing import records
from preprocessing.executors.base import Executor
from preprocessing.executors.local import LocalExecutor
from preprocessing.executors.slices import TaskSlice, describe_missing
from preprocessing.locks import BusyError, exclusive, shared
from preprocessing.progress import Progress
from preprocessing.records import Made
from preprocessing.redaction import redact_values
from preprocessing.space import check_space
from preprocessing.storage import (
    MANIFEST,
    InputError,
    Manifest,
    remove_temporaries,
)

__all__ = ["DigestedInputs", "Made", "Outcome", "SliceOutcome", "Stage", "run_slice", "run_stage"]


class Stage(Protocol):
    """What a stage says of itself. ``Task`` values are picklable; ``function`` is a module's.

    A stage whose inputs are manifests and small files derives from :class:`DigestedInputs`.
    """

    @property
    def name(self) -> str:
        """The stage's name, as in ``lexmill <name>``."""

    @property
    def directory(self) -> Path:
        """Where its shards and its manifest go."""

    def configuration(self) -> Any:
        """Plain values that decide the bytes of the output."""

    def inputs(self) -> Mapping[str, str]:
        """What identifies the inputs by name before work starts; cheap, as sizes and dates are.

        Where the digests themselves are cheap to have, these.
        """

    def changed_inputs(self, recorded: Mapping[str, str]) -> Mapping[str, str]:
        """Digests of the inputs, to compare with those a manifest recorded.

        Those that nothing was done to since need not be read for it.
        """

    def inputs_read(self, made: Sequence[Made]) -> Mapping[str, str]:
        """Digests of the inputs as the tasks found them, for the manifest."""

    def plan(self) -> Sequence[Any]:
        """The tasks, in the order of their shards."""

    def expected_bytes(self) -> int:
        """About how many bytes its output takes: a forecast, made before any work."""

    @property
    def function(self) -> Callable[[Any], Made]:
        """What does one task, in any process."""

    def finish(self, made: Sequence[Made]) -> Mapping[str, Any]:
        """Facts for the manifest; raises InputError where the result as a whole is no good."""


class DigestedInputs(abc.ABC):
    """Inputs whose digests cost nothing: known before, the same afterwards."""

    @abc.abstractmethod
    def inputs(self) -> Mapping[str, str]:
        """Digests of the inputs by name."""

    def changed_inputs(self, recorded: Mapping[str, str]) -> Mapping[str, str]:
        """The digests as they are now."""
        return self.inputs()

    def inputs_read(self, made: Sequence[Made]) -> Mapping[str, str]:
        """The digests as they were planned with."""
        return self.inputs()


@dataclass(frozen=True)
class Outcome:
    """What running a stage came to."""

    stage: str
    directory: Path
    manifest: Manifest
    status: Literal["made", "up to date"]
    tasks_done: int


@dataclass(frozen=True)
class SliceOutcome:
    """What running a slice of a stage came to.

    Attributes:
        tasks_done: by this run.
        missing: tasks of all slices that have no record yet.
    """

    stage: str
    directory: Path
    part: TaskSlice
    tasks_done: int
    missing: tuple[int, ...]


def run_stage(
    stage: Stage,
    *,
    executor: Executor | None = None,
    overwrite: bool = False,
    merge: bool = False,
    check_disk: bool = True,
    quiet: bool = False,
) -> Outcome:
    """Bring a stage's directory up to date.

    Args:
        stage: what to do.
        executor: where its tasks run; in this process if none is given.
        overwrite: replace output that was made differently.
        merge: do no task; finish what slices have done.
        check_disk: refuse to start where the output will not find room.
        quiet: no progress.

    Raises:
        InputError: the directory holds the output of another configuration (and ``overwrite`` is
            not set), an input is bad, the disk is or would be full, another process writes there,
            or tasks are missing that ``merge`` needs.
    """
    directory = stage.directory
    configuration = configuration_of(stage)
    with exclusive(directory):
        remove_temporaries(directory)
        if manifest := _up_to_date(stage, configuration, overwrite=overwrite):
            return Outcome(stage.name, directory, manifest, "up to date", 0)
        plan = plan_digest(stage, configuration)
        if merge and records.read_plan(directory) != plan:
            raise InputError(
                f"{directory}: no slice of '{stage.name}' has been run with this configuration "
                "and these inputs; run them with --slice, or run without --merge"
            )
        records.begin(directory, plan)
        tasks = stage.plan()
        done = records.read_done(directory, len(tasks))
        missing = [index for index in range(len(tasks)) if index not in done]
        if merge and missing:
            what = describe_missing(missing, records.read_slices(directory))
            raise InputError(
                f"{directory}: '{stage.name}' is not finished: missing are {what}; run them "
                "again, or run without --merge to do here what is missing"
            )
        made_now = _do(stage, tasks, missing, executor, check_disk=check_disk, quiet=quiet)
        made = {**done, **made_now}
        ordered = [made[index] for index in range(len(tasks))]
        manifest = Manifest(
            stage=stage.name,
            configuration=configuration,
            inputs=dict(stage.inputs_read(ordered)),
            shards=tuple(shard for made in ordered for shard in made.shards),
            rejects=_sum(made.rejects for made in ordered),
            tables=_sum_tables(made.tables for made in ordered),
            facts=_plain(stage.finish(ordered)),
        )
        manifest.write(directory)
        records.remove(directory)
        return Outcome(stage.name, directory, Manifest.read(directory), "made", len(missing))


def run_slice(
    stage: Stage,
    part: TaskSlice,
    *,
    executor: Executor | None = None,
    overwrite: bool = False,
    check_disk: bool = True,
    quiet: bool = False,
) -> Outcome | SliceOutcome:
    """Do the tasks of one slice and leave their records; other slices may run at the same time.

    Whoever comes first, and finds nobody there, clears what is left of another plan. The directory
    is then shared: with slices of the same plan only.

    Raises:
        InputError: as :func:`run_stage`, or slices of another plan are running.
    """
    directory = stage.directory
    configuration = configuration_of(stage)
    plan = plan_digest(stage, configuration)
    try:
        with exclusive(directory):
            remove_temporaries(directory)
            if manifest := _up_to_date(stage, configuration, overwrite=overwrite):
                return Outcome(stage.name, directory, manifest, "up to date", 0)
            records.begin(directory, plan)
    except BusyError:
        pass  # with slices, it is to be hoped
    with shared(directory):
        if records.read_plan(directory) != plan:
            raise InputError(
                f"{directory}: another configuration, or other inputs, are being worked on here; "
                "wait for it, or give this one another directory or name"
            )
        records.write_slices(directory, part.count)
        tasks = stage.plan()
        done = records.read_done(directory, len(tasks))
        own = [index for index in range(len(tasks)) if part.holds(index) and index not in done]
        _do(stage, tasks, own, executor, check_disk=check_disk, quiet=quiet)
        done = records.read_done(directory, len(tasks))
        missing = tuple(index for index in range(len(tasks)) if index not in done)
        return SliceOutcome(stage.name, directory, part, len(own), missing)


def _up_to_date(stage: Stage, configuration: Any, *, overwrite: bool) -> Manifest | None:
    """The manifest, if nothing is to be done; what must be made anew is cleared away."""
    directory = stage.directory
    if not (directory / MANIFEST).exists():
        return None
    manifest = Manifest.read(directory)
    changes = differences(manifest, configuration, stage.changed_inputs(manifest.inputs))
    if not changes and records.all_there(directory, manifest.shards):
        records.remove(directory)  # left by a run that was cut off while it removed them
        return manifest
    if changes and not overwrite:
        raise InputError(
            f"{directory}: holds the output of '{stage.name}' made differently:\n  "
            + "\n  ".join(changes)
            + "\nUse another directory or name, or --overwrite to make it anew"
        )
    records.clear(directory)
    return None


def _do(
    stage: Stage,
    tasks: Sequence[Any],
    indices: Sequence[int],
    executor: Executor | None,
    *,
    check_disk: bool,
    quiet: bool,
) -> dict[int, Made]:
    """Run and record some of the tasks."""
    if check_disk and indices:
        share = len(indices) / len(tasks)
        check_space(stage.directory, stage.name, round(stage.expected_bytes() * share))
    work = functools.partial(_run_and_record, stage.function, stage.directory)
    jobs = [(index, tasks[index]) for index in indices]
    done: dict[int, Made] = {}
    with Progress(stage.name, len(tasks), quiet=quiet) as progress:
        progress.advance(len(tasks) - len(jobs))
        for position, made in (executor or LocalExecutor()).run(work, jobs):
            done[indices[position]] = made
            progress.advance(1)
    return done


def _run_and_record(function: Callable[[Any], Made], directory: Path, job: tuple[int, Any]) -> Made:
    index, task = job
    made = function(task)
    records.write_record(directory, index, made)
    return made


def configuration_of(stage: Stage) -> Any:
    """What decides the bytes of a stage's output, as its manifest holds it."""
    return redact_values(_plain(stage.configuration()))


def plan_digest(stage: Stage, configuration: Any) -> str:
    """What the records of a run in progress belong to."""
    return digest([stage.name, configuration, dict(stage.inputs())])


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


def _sum(tables: Iterable[Mapping[str, int]]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for table in tables:
        for name, count in table.items():
            sums[name] = sums.get(name, 0) + count
    return dict(sorted(sums.items()))


def _sum_tables(many: Iterable[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    parts: dict[str, list[Mapping[str, int]]] = {}
    for tables in many:
        for name, table in tables.items():
            parts.setdefault(name, []).append(table)
    return {name: _sum(found) for name, found in sorted(parts.items())}
