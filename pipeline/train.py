"""What the launcher starts: ``deepspeed [flags] pipeline/train.py CONFIG [key.path=value ...]``.

It also runs bare (``python pipeline/train.py CONFIG``: one process) and as a module
(``deepspeed --module pipeline.train CONFIG``: from an installed wheel).
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

if sys.path and Path(sys.path[0] or ".").resolve() == Path(__file__).resolve().parent:
    # Started as a script, Python puts this folder first, and our files would shadow others'.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import contextlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.settings import Run


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and train."""
    from pipeline.commands import with_run
    from preprocessing.console import add_common_arguments, guarded, parse

    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Train a model by a recipe, on as many ranks as the launcher starts.",
        epilog="example: deepspeed --num_accelerators 2 pipeline/train.py configs/quickstart.yaml",
    )
    add_common_arguments(parser)
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)  # launchers append it
    arguments = parse(parser, argv)
    return guarded(
        lambda: with_run(
            arguments.config, arguments.overrides, train, print_config=arguments.print_config
        ),
        debug=arguments.debug,
        as_json=arguments.json and os.environ.get("RANK", "0") == "0",
    )


def train(run: Run) -> dict[str, Any]:
    """``lexmill train`` and this script."""
    # DeepSpeed calls functions that torch will drop some day; users can do nothing about it.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    from pipeline.training.start import leave_process_group, start_training

    try:
        with contextlib.redirect_stdout(sys.stderr):  # DeepSpeed prints; the result comes alone
            return start_training(run)
    finally:
        leave_process_group()


if __name__ == "__main__":
    sys.exit(main())
