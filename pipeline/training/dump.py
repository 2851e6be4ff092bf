"""A step that cannot be taken, written down so that one process can compute it again.

    failures/step-00000123/
      failure.json               step, seed, denominators, and how it was computed
      config.yaml                the resolved configuration
      model.safetensors          the weights in force, fp32
      rank-00000.safetensors     the rank's micro-batches: "<number>/<tensor>"

:mod:`pipeline.training.reproduce` reads it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from safetensors import safe_open
from torch import Tensor

from pipeline.batch import Batch
from pipeline.data import MicroBatch
from pipeline.settings import Run
from pipeline.training.agreement import exchange
from pipeline.training.checkpoints.checkpoint import CONFIG_FILE, WEIGHTS_FILE
from pipeline.training.engine import Engine
from pipeline.weights import save_weights
from preprocessing.storage import InputError, rename, write_json, write_text

FAILURES = "failures"
_FAILURE = "failure.json"


@dataclass(frozen=True)
class Failure:
    """How a step was computed.

    Attributes:
        step: counted from 0.
        seed: of the run; with step and number it gives each micro-batch's dropout.
        denominators: by objective, in the task's order.
        engine, precision, world_size: what computed it.
        gradient_norm: as the last attempt told it, in words (it may be no number).
    """

    step: int
    seed: int
    denominators: tuple[float, ...]
    engine: str
    precision: str
    world_size: int
    gradient_norm: str


def write_failure(
    run: Run, engine: Engine, failure: Failure, batches: Sequence[MicroBatch]
) -> Path:
    """Write a step down, each rank its micro-batches. Collective.

    Returns:
        The folder, whole.

    Raises:
        OSError: on every rank, where one of them could not write.
    """
    target = run.output.directory / FAILURES / f"step-{failure.step:08d}"
    writing = target.with_name(f".{target.name}.writing")
    weights = engine.weights()
    problem = None
    try:
        writing.mkdir(parents=True, exist_ok=True)
        tensors = {
            f"{number}/{name}": tensor
            for batch, number, _ in batches
            for name, tensor in batch.map(_on_cpu).named().items()
        }
        save_weights(writing / f"rank-{engine.rank:05d}.safetensors", tensors)
        if weights is not None:
            save_weights(writing / WEIGHTS_FILE, weights)
            text = yaml.safe_dump(run.plain(), sort_keys=False, allow_unicode=True)
            write_text(writing / CONFIG_FILE, text)
            write_json(writing / _FAILURE, asdict(failure))
    except (OSError, RuntimeError, InputError) as error:
        problem = str(error)
    if problems := [said for said in exchange(problem) if said]:
        raise OSError(f"{writing}: {problems[0]}")
    if engine.rank == 0:
        shutil.rmtree(target, ignore_errors=True)
        rename(writing, target)
    engine.barrier()
    return target


def read_failure(folder: Path) -> Failure:
    """How the step of a folder was computed.

    Raises:
        InputError: it is no such folder.
    """
    path = folder / _FAILURE
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}") from None
    return Failure(**{**plain, "denominators": tuple(plain["denominators"])})


def read_micro_batches(folder: Path) -> Iterator[tuple[int, int, Batch]]:
    """``(rank, number, batch)`` of every micro-batch, rank after rank."""
    for path in sorted(folder.glob("rank-*.safetensors")):
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for number in sorted({int(name.split("/")[0]) for name in tensors}):
            prefix = f"{number}/"
            own = {
                name.removeprefix(prefix): tensor
                for name, tensor in tensors.items()
                if name.startswith(prefix)
            }
            yield int(path.stem.removeprefix("rank-")), number, Batch.from_named(own)


def _on_cpu(tensor: Tensor) -> Tensor:
    """A tensor of its own, so that no two share their memory."""
    return tensor.detach().to("cpu", copy=True).contiguous()
