"""One contract for every stage: planned tasks, each making whole shards, then one manifest.

A stage is planned before any work starts: a task is a pure function of the configuration and the
inputs, never of the number of workers. Each task leaves a completion record, so that a stage that
was killed starts again where it was; the manifest is written last, and the records go.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, Protocol

from configs.schema import digest
from preprocessing import records
from preprocessing.changes import differences
from preprocessing.executors.base import Executor
from preprocessing.executors.local import LocalExecutor
from preprocessing.executors.slices import TaskSlice, describe_missing
from preprocessing.locks import BusyError, exclusive, patiently, shared
from preprocessing.places import RemotePath
from preprocessing.progress import Progress
from preprocessing.records import Made
from preprocessing.redaction import redact_values
from preprocessing.space import check_space
from preprocessing.storage import (
    LOCK,
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
        """The digests as they were planned with: the manifest is not written with others."""
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
        merge: do no task, and replace nothing; finish what slices have done.
        check_disk: refuse to start where the output will not find room.
        quiet: no progress.

    Raises:
        InputError: the directory holds the output of another configuration (and ``overwrite`` is
            not set), an input is bad or changed meanwhile, the disk is or would be full, another
            process writes there, or tasks are missing that ``merge`` needs.
    """
    directory = stage.directory
    configuration = configuration_of(stage)
    overwrite = overwrite and not merge
    if manifest := _settled(stage, configuration, overwrite=overwrite):
        return Outcome(stage.name, directory, manifest, "up to date", 0)
    with exclusive(directory):
        if manifest := _prepare(stage, configuration, overwrite=overwrite):
            return Outcome(stage.name, directory, manifest, "up to date", 0)
        plan = plan_digest(stage, configuration)
        if merge and records.read_plan(directory) != plan:
            raise InputError(
                f"{directory}: no slice of '{stage.name}' has been run with this configuration "
                "and these inputs; run them with --slice, or run without --merge"
            )
        records.begin(directory, plan)
        tasks = stage.plan()
        done = records.read_done(directory, plan, range(len(tasks)))
        missing = [index for index in range(len(tasks)) if index not in done]
        if merge and missing:
            what = describe_missing(missing, records.read_slices(directory))
            raise InputError(
                f"{directory}: '{stage.name}' is not finished: missing are {what}; run them "
                "again, or run without --merge to do here what is missing"
            )
        made_now = _do(stage, plan, tasks, missing, executor, check_disk=check_disk, quiet=quiet)
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
        _check_inputs(stage, configuration, plan)
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
    is then shared: with slices of the same plan only. Those that come while somebody else has it
    wait a minute for it.

    Raises:
        InputError: as :func:`run_stage`, or slices of another plan are running.
    """
    directory = stage.directory
    configuration = configuration_of(stage)
    plan = plan_digest(stage, configuration)
    with contextlib.ExitStack() as held:
        join = functools.partial(_join, stage, configuration, plan, held, overwrite=overwrite)
        if manifest := patiently(join):
            return Outcome(stage.name, directory, manifest, "up to date", 0)
        records.write_slices(directory, part.count)
        tasks = stage.plan()
        own = [index for index in range(len(tasks)) if part.holds(index)]
        done = records.read_done(directory, plan, own)
        left = [index for index in own if index not in done]
        _do(stage, plan, tasks, left, executor, check_disk=check_disk, quiet=quiet)
        missing = tuple(sorted({*range(len(tasks))} - records.read_recorded(directory)))
        return SliceOutcome(stage.name, directory, part, len(left), missing)


def _join(
    stage: Stage,
    configuration: Any,
    plan: str,
    held: contextlib.ExitStack,
    *,
    overwrite: bool,
) -> Manifest | None:
    """Hold a directory together with other slices of a plan; or the manifest, if none is needed.

    Raises:
        BusyError: somebody else is at work there, or it has just been left by another plan.
    """
    directory = stage.directory
    if manifest := _settled(stage, configuration, overwrite=overwrite):
        return manifest
    if (directory / MANIFEST).exists() or records.read_plan(directory) != plan:
        with contextlib.suppress(BusyError), exclusive(directory):  # busy with slices, we hope
            if manifest := _prepare(stage, configuration, overwrite=overwrite):
                return manifest
            records.begin(directory, plan)
    with contextlib.ExitStack() as entered:
        entered.enter_context(shared(directory))
        if records.read_plan(directory) != plan:
            raise BusyError(
                f"{directory}: another configuration, or other inputs, are being worked on here; "
                "wait for it, or give this one another directory or name"
            )
        held.push(entered.pop_all())
    return None


def _settled(stage: Stage, configuration: Any, *, overwrite: bool) -> Manifest | None:
    """The manifest, where one look tells that nothing is to be done.

    It takes no lock: finished output is free for any number of runs, and may be read-only. What
    a run that was cut off has left beside it is for :func:`_prepare`.
    """
    directory = stage.directory
    left = [records.RECORDS, *([LOCK] if isinstance(directory, RemotePath) else [])]
    if overwrite or any((directory / name).exists() for name in left):
        return None
    return _finished(stage, configuration, overwrite=False)


def _prepare(stage: Stage, configuration: Any, *, overwrite: bool) -> Manifest | None:
    """The manifest, if nothing is to be done; what must be made anew is cleared away."""
    directory = stage.directory
    remove_temporaries(directory)
    if manifest := _finished(stage, configuration, overwrite=overwrite):
        records.remove(directory)  # left by a run that was cut off while it removed them
        return manifest
    if (directory / MANIFEST).exists():
        records.clear(directory)
    return None


def _finished(stage: Stage, configuration: Any, *, overwrite: bool) -> Manifest | None:
    """The manifest, if it is of this configuration and these inputs, and its shards are there."""
    directory = stage.directory
    try:
        manifest = Manifest.read(directory)
    except InputError:
        if (directory / MANIFEST).exists():
            raise
        return None
    changes = differences(manifest, configuration, stage.changed_inputs(manifest.inputs))
    if changes and not overwrite:
        raise InputError(
            f"{directory}: holds the output of '{stage.name}' made differently:\n  "
            + "\n  ".join(changes)
            + "\nUse another directory or name, or --overwrite to make it anew"
        )
    there = not changes and records.all_there(directory, manifest.shards)
    return manifest if there else None


def _check_inputs(stage: Stage, configuration: Any, plan: str) -> None:
    """Make sure that all tasks have read the same.

    Raises:
        InputError: the inputs are others than those the tasks were planned for; nothing is kept.
    """
    if plan_digest(stage, configuration) != plan:
        records.clear(stage.directory)
        raise InputError(
            f"{stage.directory}: the inputs of '{stage.name}' have changed while it ran, and what "
            "it made is dropped; run it again"
        )


def _do(
    stage: Stage,
    plan: str,
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
    work = functools.partial(_run_and_record, stage.function, stage.directory, plan)
    jobs = [(index, tasks[index]) for index in indices]
    done: dict[int, Made] = {}
    with Progress(stage.name, len(tasks), quiet=quiet) as progress:
        progress.advance(len(tasks) - len(jobs))
        for position, made in (executor or LocalExecutor()).run(work, jobs):
            done[indices[position]] = made
            progress.advance(1)
    return done


def _run_and_record(
    function: Callable[[Any], Made], directory: Path, plan: str, job: tuple[int, Any]
) -> Made:
    index, task = job
    made = function(task)
    records.write_record(directory, plan, index, made)
    return made


def configuration_of(stage: Stage) -> Any:
    """What decides the bytes of a stage's output, as its manifest holds it."""
    return redact_values(_plain(stage.configuration()))


def plan_digest(stage: Stage, configuration: Any) -> str:
    """What the records of a run in progress belong to; those of another lexmill are others."""
    version = metadata.version("lexmill")
    return digest([version, stage.name, configuration, dict(stage.inputs())])


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
