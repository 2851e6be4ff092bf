"""A checkpoint's weights in a task of one process, whatever engine wrote it."""

from __future__ import annotations

from pathlib import Path

import torch

from configs.schema import ConfigError
from pipeline.objectives.task import PretrainingTask
from pipeline.settings import Run
from pipeline.training.checkpoints.checkpoint import (
    CHECKPOINTS,
    Checkpoints,
    read_origin,
    read_weights,
)
from pipeline.training.checkpoints.initial import same_vocabulary
from pipeline.training.start import build_task
from preprocessing.storage import InputError
from preprocessing.vocabulary import TOKENIZER_FILE, Vocabulary


def newest(run: Run) -> Path:
    """The newest whole checkpoint of a run.

    Raises:
        InputError: there is none.
    """
    found = Checkpoints(run.output.directory / CHECKPOINTS).latest()
    if found is None:
        raise InputError(
            f"{run.output.directory}: there is no checkpoint here; train first, or give "
            "output.directory the place of a run"
        )
    return found


def load_model(run: Run, checkpoint: Path | None = None) -> PretrainingTask:
    """The run's task with the weights of a checkpoint (None: the newest), ready to evaluate.

    On the GPU where there is one; in evaluation mode. The weights' checksum is compared first.

    Raises:
        InputError: there is no checkpoint, or it is not whole.
        ConfigError: it holds another model than the run's, or was trained with another tokenizer.
    """
    found = checkpoint or newest(run)
    if not found.is_dir():
        raise InputError(f"{found}: there is no such checkpoint")
    trained_with = read_origin(found).tokenizer
    tokenizer = run.preparation.tokenizer_directory / TOKENIZER_FILE
    vocabulary = Vocabulary.load(tokenizer.parent)
    if trained_with is None:  # imported, with a tokenizer that another tool wrote
        fits = same_vocabulary(found, vocabulary)
    else:
        fits = vocabulary.digest == trained_with
    if not fits:
        raise ConfigError([f"{found}: was trained with another tokenizer than {tokenizer}"])
    weights = read_weights(found)
    task = build_task(run)
    parameters = dict(task.model.named_parameters())
    misfits = [
        f"{found}: {name}: {_shape(weights.get(name))} in the checkpoint, "
        f"{_shape(parameters.get(name))} in the model of {run.name}"
        for name in sorted({*weights, *parameters})
        if _shape(weights.get(name)) != _shape(parameters.get(name))
    ]
    if misfits:
        raise ConfigError(misfits)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    return task.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _shape(tensor: torch.Tensor | None) -> str:
    return "nothing" if tensor is None else " x ".join(map(str, tensor.shape))
