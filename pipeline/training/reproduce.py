"""Compute a step again that a training could not take: ``python -m pipeline.training.reproduce``.

    rank 0, micro-batch 0: loss 5.6110
    rank 1, micro-batch 1: loss nan, first at model.layers.3.attention.output (Linear)

One process does what the ranks did, micro-batch after micro-batch, with the same weights, dropout
and denominators, and names the first module whose output is not finite. Where the engine holds
bf16 weights, they are fp32 here, and only what is computed is bf16.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from configs.schema import load
from pipeline.objectives.task import PretrainingTask
from pipeline.precision import autocast
from pipeline.settings import decode_run
from pipeline.training.checkpoints.checkpoint import CONFIG_FILE, WEIGHTS_FILE
from pipeline.training.dump import read_failure, read_micro_batches
from pipeline.training.loop import dropout_seed
from pipeline.training.start import build_task
from preprocessing.console import FAILED, Ended, guarded
from preprocessing.storage import InputError


@dataclass(frozen=True)
class Finding:
    """What one micro-batch came to.

    Attributes:
        module: the first whose output is not finite; None if there is none.
        gradients: parameters whose gradient is not finite, from the loss downwards.
    """

    rank: int
    number: int
    loss: float
    module: str | None
    gradients: tuple[str, ...]

    @property
    def finite(self) -> bool:
        """Whether nothing is wrong."""
        return math.isfinite(self.loss) and not self.module and not self.gradients

    def __str__(self) -> str:
        told = f"rank {self.rank}, micro-batch {self.number}: loss {self.loss:.4f}"
        if self.module:
            told += f", first at {self.module}"
        if self.gradients:
            told += f", {len(self.gradients)} gradients not finite, first {self.gradients[0]}"
        return told


def reproduce(folder: Path) -> Iterator[Finding]:
    """Compute the step of a failure's folder again, micro-batch after micro-batch.

    Raises:
        InputError: it is no such folder.
    """
    failure = read_failure(folder)
    held = {int(path.stem.removeprefix("rank-")) for path in folder.glob("rank-*.safetensors")}
    if lacking := sorted(set(range(failure.world_size)) - held):
        raise InputError(f"{folder}: the batches of ranks {lacking} lie on other hosts; copy them")
    run = decode_run(load(folder / CONFIG_FILE))
    # Modules are looked into one by one, which compiled blocks would not let happen.
    if run.train.compile:
        print(
            "blocks are not compiled here, and draw other dropout masks than the run did",
            file=sys.stderr,
            flush=True,
        )
    task = build_task(replace(run, train=replace(run.train, compile=False)))
    task.model.load_state_dict(load_file(str(folder / WEIGHTS_FILE)), strict=False)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task = task.to(device).train()
    denominators = torch.tensor(failure.denominators, device=device)
    for rank, number, batch in read_micro_batches(folder):
        torch.manual_seed(dropout_seed(failure.seed, failure.step, number))
        with (
            first_not_finite(task) as found,
            autocast(failure.precision, device),
        ):
            loss, *_ = task(batch.to(device), denominators)
        task.zero_grad()
        loss.backward()
        gradients = tuple(
            name
            for name, parameter in reversed(list(task.model.named_parameters()))
            if parameter.grad is not None and not parameter.grad.isfinite().all()
        )
        yield Finding(rank, number, float(loss.detach()), next(iter(found), None), gradients)


@contextmanager
def first_not_finite(task: PretrainingTask) -> Iterator[list[str]]:
    """Collect the modules whose output is not finite, in the order in which they are computed."""
    found: list[str] = []

    def look(name: str, module: nn.Module, output: object) -> None:
        if any(not tensor.isfinite().all() for tensor in _tensors(output)):
            found.append(f"{name} ({type(module).__name__})")

    handles = [
        module.register_forward_hook(
            lambda module, _, output, name=name: look(name, module, output)
        )
        for name, module in task.named_modules()
        if name
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _tensors(value: object) -> Iterator[Tensor]:
    """The floating tensors in an output."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _tensors(item)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 where the step fails again, 1 where it does not, 2 for another folder."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.training.reproduce",
        description="Compute a step again that a training could not take.",
        epilog="example: python -m pipeline.training.reproduce run/failures/step-00000123",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="below output.directory")
    parser.add_argument("--json", action="store_true", help="a machine-readable last line")
    parser.add_argument("--debug", action="store_true", help="tracebacks instead of sentences")
    arguments = parser.parse_args(argv)
    return guarded(lambda: _report(arguments.folder), debug=arguments.debug, as_json=arguments.json)


def _report(folder: Path) -> dict[str, Any]:
    found = []
    for finding in reproduce(folder):
        print(finding, file=sys.stderr, flush=True)
        if not finding.finite:
            found.append(finding)
    if not found:
        raise Ended(
            FAILED,
            "every loss and gradient is finite here: suspect a device or a link between the ranks, "
            "not the data or the weights",
        )
    return {
        "micro_batches": [finding.number for finding in found],
        "first": found[0].module or next(iter(found[0].gradients), "the loss"),
    }


if __name__ == "__main__":
    sys.exit(main())
