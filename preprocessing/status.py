"""What each stage of a configuration has come to, without doing any of it.

up to date   the manifest stands, and was made with this configuration and these inputs
stale        it was made differently; the reasons say how
unfinished   some of its tasks are recorded, or shards are missing
missing      nothing is there
damaged      what is there cannot be read
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from rich.text import Text

from configs.schema import load
from preprocessing import records
from preprocessing.changes import differences
from preprocessing.commands import STAGES
from preprocessing.errors import InputError
from preprocessing.garbage import Garbage, find_garbage, remove_garbage
from preprocessing.inspection.outputs import stage_directories
from preprocessing.inspection.terminal import on_a_line, open_console, table
from preprocessing.redaction import redact, redact_values
from preprocessing.settings import Preparation, decode_preparation
from preprocessing.space import format_bytes
from preprocessing.stage import Stage, configuration_of, plan_digest
from preprocessing.storage import MANIFEST, Manifest

SUMMARY = "tell what is up to date, and what nothing refers to any more (--gc)"
EXAMPLE = "example: lexmill status configs/quickstart.yaml configs/pretrain/bert/*.yaml --gc"

State = Literal["up to date", "stale", "unfinished", "missing", "damaged"]
_BESIDES = ("counts ", "tables ", "examples ")
"""Stages that not every later one needs; those that do have their manifests as inputs."""
_COLOURS: Mapping[State, str] = {
    "up to date": "green",
    "stale": "yellow",
    "unfinished": "yellow",
    "missing": "dim",
    "damaged": "red",
}


@dataclass(frozen=True)
class StageStatus:
    """One stage of one configuration.

    Attributes:
        name: as commands name it, ``examples pairs`` for an examples set.
        directory: of its output.
        state: see the module.
        reasons: a sentence each, why it is not up to date, or will not be for long.
        rows, bytes: of its shards, where there is a manifest.
        tasks_done, tasks: of an unfinished stage, where they are known.
    """

    name: str
    directory: Path
    state: State
    reasons: tuple[str, ...] = ()
    rows: int | None = None
    bytes: int | None = None
    tasks_done: int | None = None
    tasks: int | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {
            **asdict(self),
            "directory": str(self.directory),
            "reasons": [*map(redact, self.reasons)],
        }


def stage_states(preparation: Preparation) -> list[StageStatus]:
    """The state of every stage, in the order of the road."""
    makers = [make for _, stages in STAGES.values() for make in stages(preparation)]
    states: list[StageStatus] = []
    waiting: str | None = None  # for the first stage that is not up to date
    for (name, directory), make in zip(stage_directories(preparation).items(), makers, strict=True):
        try:
            state = _state(name, directory, make)
        except InputError as error:
            # Of what cannot be planned yet, an earlier stage is the reason.
            state = _unplanned(name, directory, str(error))
        if state.state == "up to date" and waiting:
            reason = f"'{waiting}' before it is not up to date"
            state = StageStatus(name, directory, state.state, (reason,), state.rows, state.bytes)
        elif state.state != "up to date" and not name.startswith(_BESIDES):
            waiting = waiting or name
        states.append(state)
    return states


def _state(name: str, directory: Path, make: Callable[[], Stage]) -> StageStatus:
    if not (directory / MANIFEST).exists():
        if records.read_plan(directory) is None:
            return StageStatus(name, directory, "missing")
        return _unfinished(name, directory, make())
    try:
        manifest = Manifest.read(directory)
    except InputError as error:
        return StageStatus(name, directory, "damaged", (str(error),))
    stage = make()
    changes = differences(manifest, configuration_of(stage), stage.changed_inputs(manifest.inputs))
    totals = manifest.totals()
    figures = {"rows": totals["rows"], "bytes": totals["bytes"]}
    if changes:
        return StageStatus(name, directory, "stale", tuple(changes), **figures)
    if not records.all_there(directory, manifest.shards):
        reason = "shards are missing or have another size than the manifest records"
        return StageStatus(name, directory, "unfinished", (reason,), **figures)
    return StageStatus(name, directory, "up to date", (), **figures)


def _unfinished(name: str, directory: Path, stage: Stage) -> StageStatus:
    plan = plan_digest(stage, configuration_of(stage))
    if records.read_plan(directory) != plan:
        reason = "what is recorded belongs to another configuration, or to other inputs"
        return StageStatus(name, directory, "stale", (reason,))
    tasks = len(stage.plan())
    made = records.read_done(directory, plan, range(tasks))
    reasons = [f"{len(made)} of {tasks} tasks are recorded"]
    if made and len(made) == tasks:
        try:
            stage.finish(list(made.values()))
        except InputError as error:  # which the next run would end with
            reasons.append(str(error))
    return StageStatus(
        name,
        directory,
        "unfinished",
        tuple(reasons),
        tasks_done=len(made),
        tasks=tasks,
    )


def _unplanned(name: str, directory: Path, reason: str) -> StageStatus:
    try:
        totals: Mapping[str, int] = Manifest.read(directory).totals()
    except InputError:
        started = records.read_plan(directory) is not None
        return StageStatus(name, directory, "unfinished" if started else "missing", (reason,))
    return StageStatus(
        name, directory, "stale", (reason,), rows=totals["rows"], bytes=totals["bytes"]
    )


# -- the command -----------------------------------------------------------------------------------


def add_status_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``status``."""
    parser.add_argument("config", metavar="CONFIG.yaml", help="a recipe")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="CONFIG.yaml|key.path=value",
        help="more recipes, and changes to all of them",
    )
    parser.add_argument(
        "--gc",
        action="store_true",
        help="list what none of these recipes refers to in their corpus directories",
    )
    parser.add_argument("--delete", action="store_true", help="with --gc: and remove it")
    parser.add_argument("--print-config", action="store_true", help="show the recipes, and end")
    parser.add_argument("--json", action="store_true", help="a machine-readable last line")
    parser.add_argument("--debug", action="store_true", help="tracebacks instead of sentences")
    parser.set_defaults(bare_words=True)


def run_status(arguments: argparse.Namespace) -> dict[str, Any]:
    """Tell the state of every stage of some recipes; the result is the machine-readable line.

    Raises:
        ConfigError: a recipe is no good.
        InputError: ``--delete`` without ``--gc``.
    """
    if arguments.delete and not arguments.gc:
        raise InputError("--delete removes what --gc lists: give both")
    overrides = [word for word in arguments.overrides if "=" in word]
    recipes = [arguments.config, *(word for word in arguments.overrides if "=" not in word)]
    documents = {recipe: load(recipe, overrides) for recipe in recipes}
    if arguments.print_config:
        raws = [redact_values(document.raw()) for document in documents.values()]
        print(yaml.safe_dump_all(raws, sort_keys=False, allow_unicode=True), end="")
        return {"status": "printed"}
    preparations = {name: decode_preparation(one) for name, one in documents.items()}
    states = {name: stage_states(preparation) for name, preparation in preparations.items()}
    garbage = find_garbage(list(preparations.values())) if arguments.gc else []
    if arguments.delete:
        garbage = remove_garbage(garbage)
    if not arguments.json:
        console = open_console()
        for name, own in states.items():
            console.print(_render(name, own))
        if arguments.gc:
            console.print(_render_garbage(garbage, list(preparations)))
    result: dict[str, Any] = {
        "configurations": [
            {
                "config": name,
                "corpus": str(preparations[name].corpus.directory),
                "stages": [state.plain() for state in own],
            }
            for name, own in states.items()
        ]
    }
    if arguments.gc:
        result["garbage"] = [one.plain() for one in garbage]
        result["garbage_bytes"] = sum(one.bytes for one in garbage)
    return result


def _render(name: str, states: Sequence[StageStatus]) -> Text:
    text = Text.assemble((on_a_line(name) + "\n", "bold"))
    width = max(len(state.name) for state in states)
    for state in states:
        text.append(f"  {state.name:<{width}}  ")
        text.append(f"{state.state:<10}", style=_COLOURS[state.state])
        if state.rows is not None and state.bytes is not None:
            text.append(f"  {state.rows:>13,} rows  {format_bytes(state.bytes):>10}")
        text.append(f"  {on_a_line(state.directory)}\n", style="dim")
        for reason in state.reasons:
            text.append(f"  {'':<{width}}    {on_a_line(redact(reason))}\n", style="dim")
    return text


def _render_garbage(garbage: Sequence[Garbage], recipes: Sequence[str]) -> Text:
    if not garbage:
        return Text(f"nothing but what {', '.join(recipes)} refer to\n")
    rows = [
        (one.status, one.what, len(one.files), format_bytes(one.bytes), str(one.directory))
        for one in garbage
    ]
    text = table(["", "what", "files", "size", "directory"], rows)
    waiting = sum(one.bytes for one in garbage if one.status == "found")
    if waiting:
        text.append(f"  {format_bytes(waiting)} that nothing refers to; --gc --delete removes it\n")
    if any(one.status == "locked" for one in garbage):
        text.append("  locked: another process is writing there, or a takedown is unfinished\n")
    return text
