"""``lexmill inspect``: what stands in a directory, a shard, or behind a configuration."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from preprocessing.inspection import documents, examples, manifests, tokens
from preprocessing.inspection.outputs import (
    Kind,
    Output,
    Selection,
    is_configuration,
    named,
)
from preprocessing.inspection.page import write_page
from preprocessing.inspection.statistics import gather
from preprocessing.inspection.terminal import open_console
from preprocessing.storage import InputError

SUMMARY = "show shards, manifests and examples, or write statistics as a page"
EXAMPLE = "example: lexmill inspect configs/quickstart.yaml pairs-64 --rows 0:3"
_FIRST_ROWS = range(3)


def add_inspect_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``inspect``."""
    parser.add_argument(
        "target", metavar="TARGET", help="a directory, a manifest, a shard, or a recipe (.yaml)"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="STAGE|key.path=value",
        help="of a recipe: one of its stages or examples sets, and changes to it",
    )
    parser.add_argument(
        "--rows", metavar="A:B", type=_rows, help="rows to show (from 0; with a search: finds)"
    )
    parser.add_argument("--split", help="of the rows (default: train)")
    parser.add_argument("--id", metavar="HEX", type=_hexadecimal, help="documents of this id")
    parser.add_argument("--grep", metavar="TEXT", help="documents that contain this text")
    parser.add_argument(
        "--epoch", type=_epoch, help="of examples: show what the loader gives then (default: 0)"
    )
    parser.add_argument("--html", metavar="FILE", type=Path, help="write statistics as a page")
    parser.add_argument("--json", action="store_true", help="a machine-readable last line")
    parser.add_argument("--debug", action="store_true", help="tracebacks instead of sentences")
    parser.set_defaults(bare_words=True)


def run_inspect(arguments: argparse.Namespace) -> dict[str, Any]:
    """Show what is asked for; the result is the machine-readable last line.

    Raises:
        InputError, ConfigError: there is nothing to show, or it is damaged.
    """
    stages = [word for word in arguments.overrides if "=" not in word]
    if len(stages) > 1:
        raise InputError(f"one stage or examples set at a time, not {', '.join(stages)}")
    overrides = [word for word in arguments.overrides if "=" in word]
    outputs = named(arguments.target, stages[0] if stages else None, overrides)
    selection = Selection(
        rows=_FIRST_ROWS if arguments.rows is None else arguments.rows,
        split=arguments.split,
        id=arguments.id,
        grep=arguments.grep,
        epoch=arguments.epoch,
    )
    wants_rows = any(
        value is not None
        for value in (
            arguments.rows,
            arguments.split,
            arguments.id,
            arguments.grep,
            arguments.epoch,
        )
    )
    if arguments.html is not None:
        if wants_rows:
            raise InputError("--html tells of all rows; leave out what chooses some")
        return _write_page(arguments.target, outputs, arguments.html)
    if wants_rows and len(outputs) > 1:
        known = ", ".join(output.name.removeprefix("examples ") for output in outputs)
        where = "behind the recipe" if is_configuration(arguments.target) else "by its directory"
        raise InputError(f"whose rows? Name one {where}; there are {known}")
    console = None if arguments.json else open_console()
    if wants_rows or arguments.target.endswith(".arrow"):
        return _show_rows(outputs[0], selection, console)
    summaries = [manifests.summarize(output) for output in outputs]
    if console is not None:
        for summary in summaries:
            console.print(manifests.render(summary))
    return {"outputs": summaries}


def _show_rows(output: Output, selection: Selection, console: Console | None) -> dict[str, Any]:
    """Rows on the console, or, where there is none, in the result."""
    kind = output.kind
    rows: list[dict[str, Any]] = []
    count = 0
    if console is not None and kind == "examples":
        console.print(examples.LEGEND, style="dim")
    for row in _read(output, kind, selection):
        count += 1
        if console is None:
            rows.append(row)
        else:
            console.print(_render(output, kind, row, selection))
    if console is not None and not count:
        console.print("no such rows")
    return {"directory": str(output.directory), "kind": kind, "rows": rows}


def _render(output: Output, kind: Kind, row: dict[str, Any], selection: Selection) -> Text:
    if kind == "tokens":
        return tokens.render(row)
    if kind == "examples" and output.manifest is not None:
        return examples.render(row)
    return documents.render(row, selection.grep)


def _read(output: Output, kind: Kind, selection: Selection) -> Iterator[dict[str, Any]]:
    if kind == "examples" and output.manifest is not None:
        return examples.read_examples(output, selection)
    if selection.epoch is not None:
        raise InputError(f"{output.directory}: --epoch is for examples; these are {kind}")
    if kind == "tokens":
        return tokens.read_tokens(output, selection)
    return documents.read_documents(output, selection)


def _write_page(target: str, outputs: list[Output], path: Path) -> dict[str, Any]:
    if path.is_dir():
        raise InputError(f"{path}: is a directory; give --html the name of a file")
    statistics = [gather(output) for output in outputs]
    write_page(path, Path(target).stem, statistics)
    print(f"inspect: wrote {path}", file=sys.stderr)
    return {"html": str(path), "statistics": [one.plain() for one in statistics]}


def _rows(text: str) -> range:
    match = re.fullmatch(r"(\d{1,15})?:(\d{1,15})?|(\d{1,15})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"'{text}' is not A:B with whole numbers from 0")
    if match[3]:
        return range(int(match[3]), int(match[3]) + 1)
    start = int(match[1] or 0)
    rows = range(start, int(match[2]) if match[2] else start + 10)
    if not rows:
        raise argparse.ArgumentTypeError(f"'{text}' holds no row")
    return rows


def _hexadecimal(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Fa-f]{1,32}", text):
        raise argparse.ArgumentTypeError(f"'{text}' is not the beginning of a hexadecimal id")
    return text.lower()


def _epoch(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text):
        raise argparse.ArgumentTypeError(f"'{text}' is not an epoch: a whole number from 0")
    return int(text)
