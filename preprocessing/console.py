"""The command line of the stages, and what every command does with errors and results."""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from configs.schema import ConfigError, load
from preprocessing.commands import STAGES, run_preparation
from preprocessing.settings import decode_preparation
from preprocessing.storage import InputError

OK, FAILED, BAD_INPUT = 0, 1, 2


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
    unknown = [word for word in rest if word.startswith("-") or "=" not in word]
    if unknown or (rest and not hasattr(arguments, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(unknown or rest)}")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


def add_stage_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of a preprocessing stage."""
    add_common_arguments(parser)
    parser.add_argument(
        "--overwrite", action="store_true", help="replace output that was made differently"
    )


def stage_example(name: str) -> str:
    """The example that a stage's help shows."""
    return f"example: lexmill {name} configs/quickstart.yaml corpus.workers=8"


def run_stage_command(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one stage as a command; the result is the machine-readable last line."""
    document = load(arguments.config, arguments.overrides)
    preparation = decode_preparation(document)
    if arguments.print_config:
        print(yaml.safe_dump(document.raw(), sort_keys=False, allow_unicode=True), end="")
        return {"stage": name, "status": "printed"}
    results = []
    for outcome in run_preparation(preparation, (name,), overwrite=arguments.overwrite):
        totals = outcome.manifest.totals()
        line = ", ".join(f"{count:,} {what}" for what, count in totals.items() if count)
        rejects = ", ".join(f"{n:,} {why}" for why, n in outcome.manifest.rejects.items() if n)
        print(
            f"{name}: {outcome.status}: {outcome.directory} ({line})"
            + (f"; left out: {rejects}" if rejects else ""),
            file=sys.stderr,
        )
        results.append(
            {
                "directory": str(outcome.directory),
                "status": outcome.status,
                "totals": totals,
                "rejects": dict(outcome.manifest.rejects),
            }
        )
    return {"stage": name, "outputs": results}


def guarded(command: Callable[[], dict[str, Any]], *, debug: bool, as_json: bool) -> int:
    """Run a command; errors become a sentence and an exit code (1 failed, 2 bad input)."""
    try:
        result = command()
    except (ConfigError, InputError, OSError) as error:
        if debug:
            traceback.print_exc()
        else:
            print(_sentence(error), file=sys.stderr)
        result = {"error": str(error)}
        code = FAILED if isinstance(error, OSError) else BAD_INPUT
    except Ended as end:
        if str(end):
            traceback.print_exc() if debug else print(end, file=sys.stderr)
        result, code = {"error": str(end)}, end.code
    except KeyboardInterrupt:
        print("interrupted; what is finished is kept", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            raise
        print(f"failed: {type(error).__name__}: {error} (--debug shows where)", file=sys.stderr)
        result, code = {"error": str(error)}, FAILED
    else:
        code = OK
    if as_json:
        print(json.dumps(result))
    return code


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {os.strerror(error.errno) if error.errno else error}"
    return str(error)


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m preprocessing``."""
    parser = argparse.ArgumentParser(prog="python -m preprocessing", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="STAGE")
    for name, (what, _) in STAGES.items():
        add_stage_arguments(
            commands.add_parser(name, help=what, description=what, epilog=stage_example(name))
        )
    arguments = parse(parser, argv)
    return guarded(
        lambda: run_stage_command(arguments.command, arguments),
        debug=arguments.debug,
        as_json=arguments.json,
    )
