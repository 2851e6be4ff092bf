"""``lexmill takedown CONFIG.yaml ID ...``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from configs.schema import load
from preprocessing.settings import decode_preparation
from preprocessing.storage import InputError
from preprocessing.takedown.request import take_down

SUMMARY = "remove documents for good, rewriting only the shards that hold them"
EXAMPLE = (
    "example: lexmill takedown configs/quickstart.yaml 0123456789abcdef0123456789abcdef "
    "--reason 'asked by the author'. Every copy goes, before and after cleaning, and ingest and "
    "clean leave it out from now on. Example sets that held it are built anew by the next run. "
    "Near duplicates that were dropped because of it do not come back, and models trained on it "
    "keep what they have learnt. Without documents: finish a takedown that was cut off."
)


def add_takedown_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("config", metavar="CONFIG.yaml", help="a recipe of the corpus")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="ID|key.path=value",
        help="document ids (32 hexadecimal digits), and changes to the recipe",
    )
    parser.add_argument("--ids-file", type=Path, help="a file with one id a line")
    parser.add_argument("--source", help="instead of an id: the file, as document shards name it")
    parser.add_argument("--offset", type=int, help="and the document's place in it")
    parser.add_argument("--reason", default="", help="kept in the ledger and the reject log")
    parser.add_argument("--json", action="store_true", help="a machine-readable last line")
    parser.add_argument("--debug", action="store_true", help="tracebacks instead of sentences")


def run_takedown_command(arguments: argparse.Namespace) -> dict[str, Any]:
    """Take documents down; the result is the machine-readable last line."""
    ids = [word for word in arguments.overrides if "=" not in word]
    changes = [word for word in arguments.overrides if "=" in word]
    corpus = decode_preparation(load(arguments.config, changes)).corpus.directory
    if arguments.ids_file:
        ids += _read_ids(arguments.ids_file)
    if (arguments.source is None) != (arguments.offset is None):
        raise InputError("--source and --offset name a place together; give both")
    places = [(arguments.source, arguments.offset)] if arguments.source is not None else []
    done = take_down(corpus, ids, places, arguments.reason)
    for directory, count in done.rewritten.items():
        print(f"takedown: {count} shards written anew in {directory}", file=sys.stderr)
    for directory in done.removed:
        print(f"takedown: removed {directory}; the next run builds it anew", file=sys.stderr)
    print(
        f"takedown: {len({(one.source, one.offset) for one in done.entries})} documents"
        if done.entries
        else "takedown: nothing to do",
        file=sys.stderr,
    )
    return {
        "taken_down": [
            {"id": one.id, "source": one.source, "offset": one.offset} for one in done.entries
        ],
        "rewritten": {str(directory): count for directory, count in done.rewritten.items()},
        "removed": [str(directory) for directory in done.removed],
    }


def _read_ids(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except OSError as error:
        raise InputError(f"--ids-file {path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"--ids-file {path}: not UTF-8; give a text with one id a line") from None
