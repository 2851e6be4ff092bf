"""The command line of the stages, and what every command does with errors and results."""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from configs.schema import ConfigError, Document, load
from preprocessing import status
from preprocessing.commands import STAGES, count_stages, run_preparation, run_slices
from preprocessing.executors.slices import TaskSlice
from preprocessing.inspection import command as inspecting
from preprocessing.inspection.command import add_inspect_arguments, run_inspect
from preprocessing.redaction import redact, redact_values
from preprocessing.settings import Preparation, decode_preparation
from preprocessing.stage import Outcome, SliceOutcome
from preprocessing.status import add_status_arguments, run_status
from preprocessing.storage import InputError
from preprocessing.takedown import command as taking_down

OK, FAILED, BAD_INPUT = 0, 1, 2
ROAD = "all stages in order; what is up to date is left alone"


OTHER_COMMANDS: Mapping[
    str,
    tuple[
        str,
        str,
        Callable[[argparse.ArgumentParser], None],
        Callable[[argparse.Namespace], dict[str, Any]],
    ],
] = {
    "inspect": (inspecting.SUMMARY, inspecting.EXAMPLE, add_inspect_arguments, run_inspect),
    "status": (status.SUMMARY, status.EXAMPLE, add_status_arguments, run_status),
    "takedown": (
        taking_down.SUMMARY,
        taking_down.EXAMPLE,
        taking_down.add_takedown_arguments,
        taking_down.run_takedown_command,
    ),
}
"""Commands that are no stages: what they do, an example, arguments, function."""


class Ended(Exception):
    """A command that ends with ``code`` by its own decision.

    The message says why; it is empty where another process of the same command says it.
    """

    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(message)
        self.code = code


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of every command that takes a configuration."""
    parser.add_argument("config", metavar="CONFIG.yaml", help="the recipe")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="changes to it")
    parser.add_argument("--print-config", action="store_true", help="show what would run, and end")
    parser.add_argument("--json", action="store_true", help="a machine-readable last line")
    parser.add_argument("--debug", action="store_true", help="tracebacks instead of sentences")


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line in which overrides may stand between and behind the options."""
    arguments, rest = parser.parse_known_args(argv)
    bare = getattr(arguments, "bare_words", False)
    unknown = [word for word in rest if word.startswith("-") or not (bare or "=" in word)]
    if unknown or (rest and not hasattr(arguments, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(unknown or rest)}")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


def add_stage_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of whatever runs stages."""
    add_common_arguments(parser)
    parser.add_argument(
        "--overwrite", action="store_true", help="replace output that was made differently"
    )


def add_slice_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of a single stage, which an array of jobs may share."""
    add_stage_arguments(parser)
    shared = parser.add_mutually_exclusive_group()
    shared.add_argument(
        "--slice", metavar="I/N", help="only the tasks of slice I of N (from 0), to be merged later"
    )
    shared.add_argument(
        "--merge", action="store_true", help="finish what slices have done, without doing a task"
    )


def stage_example(name: str) -> str:
    """The example that a stage's help shows."""
    return f"example: lexmill {name} configs/quickstart.yaml corpus.workers=8"


def run_stage_command(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one stage as a command; the result is the machine-readable last line."""
    document = load(arguments.config, arguments.overrides)
    preparation = decode_preparation(document)
    if arguments.print_config:
        return {"stage": name, **_print_config(document)}
    if arguments.merge and arguments.overwrite:
        raise InputError(
            "--merge finishes what slices have done, and --overwrite replaces output: give "
            "--overwrite to the slices"
        )
    if arguments.slice is not None:
        return _run_slice_command(name, preparation, arguments)
    outcomes = []
    for outcome in run_preparation(
        preparation, (name,), overwrite=arguments.overwrite, merge=arguments.merge
    ):
        _tell(outcome)
        outcomes.append(outcome)
    if not outcomes:
        print(f"{name}: nothing to do: corpus.{name} is not given", file=sys.stderr)
    left = count_stages(preparation, name) - len(outcomes)
    if left:
        print(
            f"{name}: {left} more stage{'s' if left > 1 else ''} of this command to do: run the "
            f"slices again (--slice), then --merge; or run {name} without either",
            file=sys.stderr,
        )
    return {"stage": name, "outputs": [_plain(outcome) for outcome in outcomes], "left": left}


def run_road_command(arguments: argparse.Namespace) -> dict[str, Any]:
    """All stages in the order of the road, for a configuration that trains nothing."""
    document = load(arguments.config, arguments.overrides)
    preparation = decode_preparation(document)
    if arguments.print_config:
        return _print_config(document)
    outcomes = []
    for outcome in run_preparation(preparation, overwrite=arguments.overwrite):
        _tell(outcome)
        outcomes.append(outcome)
    return {"outputs": [_plain(outcome) for outcome in outcomes]}


def _print_config(document: Document) -> dict[str, Any]:
    raw = redact_values(document.raw())
    print(yaml.safe_dump(raw, sort_keys=False, allow_unicode=True), end="")
    return {"status": "printed"}


def _run_slice_command(
    name: str, preparation: Preparation, arguments: argparse.Namespace
) -> dict[str, Any]:
    part = TaskSlice.parse(arguments.slice)
    outputs: list[dict[str, Any]] = []
    for outcome in run_slices(preparation, name, part, overwrite=arguments.overwrite):
        if isinstance(outcome, SliceOutcome):
            missing = len(outcome.missing)
            print(
                f"{outcome.stage}: slice {part} done: {outcome.tasks_done} tasks; "
                + (
                    f"{missing} of other slices are missing"
                    if missing
                    else f"nothing is missing: finish it with lexmill {name} --merge"
                ),
                file=sys.stderr,
            )
            outputs.append(
                {
                    "directory": str(outcome.directory),
                    "status": "slice done",
                    "tasks_done": outcome.tasks_done,
                    "tasks_missing": missing,
                }
            )
        else:
            _tell(outcome)
            outputs.append(_plain(outcome))
    return {"stage": name, "slice": str(part), "outputs": outputs}


def _tell(outcome: Outcome) -> None:
    totals = outcome.manifest.totals()
    line = ", ".join(f"{count:,} {what}" for what, count in totals.items() if count)
    rejects = ", ".join(f"{n:,} {why}" for why, n in outcome.manifest.rejects.items() if n)
    print(
        f"{outcome.stage}: {outcome.status}: {outcome.directory} ({line})"
        + (f"; left out: {rejects}" if rejects else ""),
        file=sys.stderr,
    )


def _plain(outcome: Outcome) -> dict[str, Any]:
    return {
        "directory": str(outcome.directory),
        "status": outcome.status,
        "totals": outcome.manifest.totals(),
        "rejects": dict(outcome.manifest.rejects),
    }


def guarded(command: Callable[[], dict[str, Any]], *, debug: bool, as_json: bool) -> int:
    """Run a command; errors become a sentence and an exit code (1 failed, 2 bad input).

    Nothing that is printed of them holds a secret.
    """
    try:
        result = command()
    except (ConfigError, InputError, OSError) as error:
        print(_traceback() if debug else redact(_sentence(error)), file=sys.stderr)
        result = {"error": redact(str(error))}
        code = FAILED if isinstance(error, OSError) else BAD_INPUT
    except Ended as end:
        if str(end):
            print(_traceback() if debug else redact(str(end)), file=sys.stderr)
        result, code = {"error": redact(str(end))}, end.code
    except KeyboardInterrupt:
        print("interrupted; what is finished is kept", file=sys.stderr)
        return 130
    except Exception as error:
        text = redact(str(error))
        sentence = f"failed: {type(error).__name__}: {text} (--debug shows where)"
        print(_traceback() if debug else sentence, file=sys.stderr)
        result, code = {"error": text}, FAILED
    else:
        code = OK
    if as_json:
        print(json.dumps(result))
    return code


def _traceback() -> str:
    return redact(traceback.format_exc()).rstrip()


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {os.strerror(error.errno) if error.errno else error}"
    return str(error)


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m preprocessing``."""
    parser = argparse.ArgumentParser(prog="python -m preprocessing", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="STAGE")
    for name, (what, _) in STAGES.items():
        add_slice_arguments(
            commands.add_parser(name, help=what, description=what, epilog=stage_example(name))
        )
    add_stage_arguments(
        commands.add_parser("run", help=ROAD, description=ROAD, epilog=stage_example("run"))
    )
    for name, (what, example, add_arguments, _) in OTHER_COMMANDS.items():
        add_arguments(commands.add_parser(name, help=what, description=what, epilog=example))
    arguments = parse(parser, argv)

    def run() -> dict[str, Any]:
        if arguments.command in OTHER_COMMANDS:
            return OTHER_COMMANDS[arguments.command][3](arguments)
        if arguments.command == "run":
            return run_road_command(arguments)
        return run_stage_command(arguments.command, arguments)

    return guarded(
        run,
        debug=arguments.debug,
        as_json=arguments.json,
    )
