"""The ``lexmill`` command. Commands import what they need when they run, not before."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.schema import find, load
from preprocessing.commands import STAGES
from preprocessing.console import (
    BAD_INPUT,
    OTHER_COMMANDS,
    add_common_arguments,
    add_slice_arguments,
    add_stage_arguments,
    guarded,
    parse,
    run_road_command,
    run_stage_command,
    stage_example,
)
from preprocessing.storage import InputError

if TYPE_CHECKING:
    from pipeline.settings import Run

Result = dict[str, Any]


class CommandFailed(RuntimeError):
    """A command that was started ended with an error; it has said why."""


@dataclass(frozen=True)
class Entry:
    """One command: what it does, an example, how its arguments look, and what runs it."""

    group: str
    summary: str
    example: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Result]


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    add_stage_arguments(parser)
    parser.add_argument(
        "--ranks", type=_positive, help="processes (default: the GPUs; else at most 2)"
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    add_common_arguments(parser)
    parser.add_argument("--checkpoint", type=Path, help="another one than the newest")


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    _checkpoint_arguments(parser)
    parser.add_argument(
        "--output", type=Path, help="a new folder (default: portable/ in the run's output)"
    )


def _inspect_arguments(parser: argparse.ArgumentParser) -> None:
    inspect_arguments(parser)
    parser.add_argument(
        "--step",
        type=_positive,
        help="of a run (a recipe, or its output directory): the exact batch of this step, counted "
        "as in metrics.jsonl, and the documents it came from",
    )


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a Hugging Face folder")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="a new folder for ours")
    parser.add_argument("--json", action="store_true", help="a machine-readable last line")
    parser.add_argument("--debug", action="store_true", help="tracebacks instead of sentences")


def _run(arguments: argparse.Namespace) -> Result:
    if "model" not in load(arguments.config, arguments.overrides).sections:
        return run_road_command(arguments)
    from pipeline.commands import run_all

    return _with_run(
        arguments,
        lambda run: run_all(run, lambda: _launch(run, arguments), overwrite=arguments.overwrite),
    )


def _launch(run: Run, arguments: argparse.Namespace) -> None:
    """Start the training as a person would: by the ``deepspeed`` launcher.

    Raises:
        InputError: the training refused what it was given.
        CommandFailed: it ended with another error.
    """
    import torch

    from launchers.local import Command, deepspeed_command, default_ranks

    script = Path(__file__).with_name("train.py")
    recipe = str(find(arguments.config))
    words = [*arguments.overrides, *(["--debug"] if arguments.debug else [])]
    gpus = torch.cuda.device_count()
    if run.train.engine == "local":
        command = Command((sys.executable, str(script), recipe, *words))
    else:
        ranks = arguments.ranks or default_ranks(gpus)
        command = deepspeed_command(script, recipe, words, ranks, gpus=bool(gpus))
    print(f"$ {command}", file=sys.stderr, flush=True)
    environment = {**os.environ, **dict(command.environment)}
    # What the launcher and DeepSpeed print is progress: it goes to standard error.
    code = subprocess.run(command.words, env=environment, stdout=2, check=False).returncode
    if code == BAD_INPUT:
        raise InputError("the training refused its input; see above")
    if code:
        raise CommandFailed(f"the training ended with exit code {code}; see above")


def _train(arguments: argparse.Namespace) -> Result:
    from pipeline.train import train

    return _with_run(arguments, train)


def _evaluate(arguments: argparse.Namespace) -> Result:
    from pipeline.commands import evaluate_run

    return _with_run(arguments, lambda run: evaluate_run(run, arguments.checkpoint))


def _export(arguments: argparse.Namespace) -> Result:
    from pipeline.commands import export_run

    return _with_run(arguments, lambda run: export_run(run, arguments.checkpoint))


def _convert(arguments: argparse.Namespace) -> Result:
    from pipeline.commands import convert_run

    return _with_run(
        arguments, lambda run: convert_run(run, arguments.checkpoint, arguments.output)
    )


def _report(arguments: argparse.Namespace) -> Result:
    from pipeline.commands import report_run

    return _with_run(arguments, report_run)


def _with_run(arguments: argparse.Namespace, action: Callable[[Run], Result]) -> Result:
    from pipeline.commands import with_run

    return with_run(
        arguments.config, arguments.overrides, action, print_config=arguments.print_config
    )


def _import(arguments: argparse.Namespace) -> Result:
    from pipeline.commands import import_folder

    return import_folder(arguments.folder, arguments.output)


def _inspect(arguments: argparse.Namespace) -> Result:
    if arguments.step is None:
        return run_inspect(arguments)
    from pipeline.inspecting import show_step

    given = (arguments.rows, arguments.split, arguments.id, arguments.grep, arguments.epoch)
    if arguments.html is not None or any(one is not None for one in given):
        raise InputError("--step shows the whole batch of a step; leave out what chooses rows")
    return show_step(arguments.target, arguments.overrides, arguments.step, as_json=arguments.json)


inspect_summary, inspect_example, inspect_arguments, run_inspect = OTHER_COMMANDS["inspect"]
_QUICKSTART = "configs/quickstart.yaml"
COMMANDS: dict[str, Entry] = {
    **{
        name: Entry(
            "prepare",
            summary,
            stage_example(name),
            add_slice_arguments,
            lambda arguments: run_stage_command(arguments.command, arguments),
        )
        for name, (summary, _) in STAGES.items()
    },
    "inspect": Entry("prepare", inspect_summary, inspect_example, _inspect_arguments, _inspect),
    "takedown": Entry("prepare", *OTHER_COMMANDS["takedown"]),
    "run": Entry(
        "train",
        "all stages in order, and where there is a model training, evaluation, export, report; "
        "skips what is up to date",
        f"example: lexmill run {_QUICKSTART} --ranks 2",
        _run_arguments,
        _run,
    ),
    "train": Entry(
        "train",
        "train in this process (several ranks: deepspeed pipeline/train.py CONFIG)",
        f"example: lexmill train {_QUICKSTART} train.engine=local",
        add_common_arguments,
        _train,
    ),
    "status": Entry("train", *OTHER_COMMANDS["status"]),
    "evaluate": Entry(
        "judge",
        "score the newest checkpoint beside its baselines",
        f"example: lexmill evaluate {_QUICKSTART} --json",
        _checkpoint_arguments,
        _evaluate,
    ),
    "report": Entry(
        "judge",
        "write report.html of a run",
        f"example: lexmill report {_QUICKSTART}",
        add_common_arguments,
        _report,
    ),
    "export": Entry(
        "share",
        "write the Hugging Face form and prove that it computes the same",
        f"example: lexmill export {_QUICKSTART} export.directory=my-bert",
        _checkpoint_arguments,
        _export,
    ),
    "convert": Entry(
        "share",
        "write a checkpoint that goes on with any engine, stage and number of ranks",
        f"example: lexmill convert {_QUICKSTART} --output archive/quickstart",
        _convert_arguments,
        _convert,
    ),
    "import": Entry(
        "share",
        "read a Hugging Face folder into the form of our checkpoints",
        "example: lexmill import my-bert imported/my-bert",
        _import_arguments,
        _import,
    ),
}


def overview() -> str:
    """The commands in their groups."""
    lines = []
    for group in dict.fromkeys(entry.group for entry in COMMANDS.values()):
        lines.append(f"{group}:")
        lines += [
            f"  {name:<13}{entry.summary}"
            for name, entry in COMMANDS.items()
            if entry.group == group
        ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns 0 (ok), 1 (failed) or 2 (bad input)."""
    parser = argparse.ArgumentParser(
        prog="lexmill",
        description="Pretrain language models: raw text in, Hugging Face-compatible models out.",
        epilog=overview(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="lexmill COMMAND CONFIG.yaml [key.path=value ...]",
    )
    commands = parser.add_subparsers(
        dest="command", required=True, prog="lexmill", help=argparse.SUPPRESS
    )
    for name, entry in COMMANDS.items():
        entry.arguments(commands.add_parser(name, description=entry.summary, epilog=entry.example))
    arguments = parse(parser, argv)
    return guarded(
        lambda: COMMANDS[arguments.command].run(arguments),
        debug=arguments.debug,
        as_json=arguments.json,
    )


if __name__ == "__main__":
    sys.exit(main())
