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
    from configs.schema import ConfigError
    from pipeline.commands import with_run
    from preprocessing.console import BAD_INPUT, Ended, add_common_arguments, guarded, parse

    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Train a model by a recipe, on as many ranks as the launcher starts.",
        epilog="example: deepspeed --num_accelerators 2 pipeline/train.py configs/quickstart.yaml",
    )
    add_common_arguments(parser)
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)  # launchers append it
    arguments = parse(parser, argv)

    def act() -> dict[str, Any]:
        try:
            return with_run(
                arguments.config, arguments.overrides, train, print_config=arguments.print_config
            )
        except ConfigError as error:  # all ranks of a host read the same recipe: one tells it
            if os.environ.get("LOCAL_RANK", "0") == "0":
                raise
            raise Ended(BAD_INPUT) from error

    return guarded(
        act,
        debug=arguments.debug,
        as_json=arguments.json and os.environ.get("RANK", "0") == "0",
    )


def train(run: Run) -> dict[str, Any]:
    """``lexmill train`` and this script."""
    # DeepSpeed calls functions that torch will drop some day; users can do nothing about it.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    from pipeline.training.agreement import Agreed, TrainingStopped
    from pipeline.training.start import leave_process_group, start_training
    from preprocessing.console import BAD_INPUT, FAILED, Ended

    try:
        with contextlib.redirect_stdout(sys.stderr):  # DeepSpeed prints; the result comes alone
            return start_training(run)
    except (Agreed, TrainingStopped) as reason:  # of all ranks alike: one tells it
        code = BAD_INPUT if isinstance(reason, Agreed) else FAILED
        follows = os.environ.get("RANK", "0") != "0"
        raise Ended(code, "" if follows else str(reason)) from reason
    finally:
        leave_process_group()


if __name__ == "__main__":
    sys.exit(main())
