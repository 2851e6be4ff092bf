"""What a new run begins with instead of drawn weights: ``train.init_from``.

With ``what: weights`` the run is a new one in all else: step 0, no moments, its own warm-up and
data. With ``what: everything`` it is a branch of the run that wrote the checkpoint: it goes on at
that step, under the rules of a resume, with its own output directory and tracked run.

Either holds at the very first start only; once the run has a checkpoint, it goes on from that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from configs.schema import ConfigError
from pipeline.models import build_model
from pipeline.sections import InitFromConfig
from pipeline.settings import Run
from pipeline.training.checkpoints.checkpoint import (
    CHECKPOINTS,
    LATEST,
    STATE_FILE,
    TOKENIZER,
    Checkpoints,
    State,
    is_imported,
    read_origin,
    read_state,
    read_weights,
)
from pipeline.training.checkpoints.integrity import find_damage
from pipeline.training.checkpoints.pickles import check_pickle
from pipeline.training.checkpoints.states import SavedState
from pipeline.training.hosts import Host
from preprocessing.storage import InputError, file_digest
from preprocessing.tokenizers.adoption import VOCABULARY_FILE
from preprocessing.tokenizers.models import load_model, model_file, pieces_of
from preprocessing.vocabulary import SENTENCEPIECE_FILE, TOKENIZER_FILE, Vocabulary


@dataclass(frozen=True)
class Beginning:
    """A checkpoint that a run begins with.

    Attributes:
        checkpoint: where it stands.
        state: where the run goes on; None where it takes the weights alone.
        weights: the tensors that it takes then.
        facts: what is recorded of it.
    """

    checkpoint: Path
    state: State | None
    weights: SavedState
    facts: Mapping[str, Any]


def find_beginning(run: Run, host: Host) -> Beginning | None:
    """What ``train.init_from`` names, verified; None where it names nothing.

    Raises:
        InputError: there is no such checkpoint, or it is damaged.
        ConfigError: it does not fit the run; every tensor that does not is named.
    """
    settings = run.train.init_from
    if settings is None:
        return None
    checkpoint = resolve(settings.checkpoint)
    facts: dict[str, Any] = {
        "path": str(checkpoint),
        "taken": settings.what,
        "weights": read_origin(checkpoint).weights,
    }
    if settings.what == "everything":
        state = _whole_state(checkpoint, host)
        return Beginning(checkpoint, state, SavedState({}), {**facts, "from_step": state.step})
    _require_vocabulary(run, checkpoint)
    weights = read_weights(checkpoint)
    missing, unused = match_tensors(run, checkpoint, weights, settings)
    taken = {name: tensor for name, tensor in weights.items() if name not in unused}
    facts |= {"missing": missing, "unused": unused}
    return Beginning(checkpoint, None, SavedState(taken), facts)


def resolve(path: Path) -> Path:
    """The folder with the weights: ``path``, or the newest checkpoint of the run there.

    Raises:
        InputError: there is neither.
    """
    for directory in (path / CHECKPOINTS, path):
        if (directory / LATEST).exists() and (newest := Checkpoints(directory).latest()):
            return newest
    if (path / STATE_FILE).exists() or is_imported(path):
        return path
    if (path / "config.json").exists():
        raise InputError(
            f"{path}: a Hugging Face folder; make ours of it first: lexmill import {path} FOLDER"
        )
    raise InputError(
        f"{path}: neither a checkpoint, nor a run's output directory with one, nor a folder that "
        "lexmill import wrote"
    )


def match_tensors(
    run: Run,
    checkpoint: Path,
    weights: Mapping[str, torch.Tensor],
    settings: InitFromConfig,
) -> tuple[list[str], list[str]]:
    """Compare a checkpoint's tensors with the model's.

    A tensor of another shape is both: the model lacks it, and the checkpoint's is not taken.

    Returns:
        The model's tensors that the checkpoint lacks, and its tensors that the model lacks.

    Raises:
        ConfigError: they are not named by the patterns that allow it.
    """
    with torch.device("meta"):
        model = build_model(run.model)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    missing = [name for name, shape in shapes.items() if given.get(name) != shape]
    unused = [name for name, shape in given.items() if shapes.get(name) != shape]
    refused = {
        *(name for name in missing if not _matches(name, settings.allow_missing)),
        *(name for name in unused if not _matches(name, settings.allow_unused)),
    }
    if refused:
        raise ConfigError(
            [
                f"{checkpoint}: does not fit the model of {run.name}:",
                *(
                    f"  {name}: {_shape(given.get(name))} in the checkpoint, "
                    f"{_shape(shapes.get(name))} in the model"
                    for name in sorted(refused)
                ),
                "Name those that the model shall draw anew in train.init_from.allow_missing, those "
                "that it shall not take in train.init_from.allow_unused, and those of another "
                "shape in both",
            ]
        )
    return missing, unused


def idle_patterns(run: Run, beginning: Beginning) -> list[str]:
    """Patterns that allow what did not occur."""
    settings = run.train.init_from
    assert settings is not None
    occurred = {key: beginning.facts.get(key, []) for key in ("missing", "unused")}
    return [
        pattern
        for patterns, names in (
            (settings.allow_missing, occurred["missing"]),
            (settings.allow_unused, occurred["unused"]),
        )
        for pattern in patterns
        if not any(fnmatchcase(name, pattern) for name in names)
    ]


def same_vocabulary(checkpoint: Path, vocabulary: Vocabulary) -> bool:
    """Whether each row of a checkpoint's embeddings is the same piece's as in the run."""
    pieces = dict(zip(pieces_of(vocabulary.model), range(vocabulary.size), strict=True))
    return _pieces(checkpoint / TOKENIZER) == pieces


def _whole_state(checkpoint: Path, host: Host) -> State:
    """The record of a checkpoint whose files are as they were saved; each rank reads its share."""
    if not (checkpoint / STATE_FILE).exists():
        raise InputError(
            f"{checkpoint}: holds weights alone: lexmill import knows no moments and steps; "
            "use train.init_from.what=weights"
        )
    state = read_state(checkpoint)
    names = host.share(sorted(state.files))
    if problem := find_damage(checkpoint, state.files, names):
        raise InputError(problem)
    for name in names:
        if name.endswith(".pt"):
            check_pickle(checkpoint / name)
    return state


def _require_vocabulary(run: Run, checkpoint: Path) -> None:
    vocabulary = Vocabulary.load(run.preparation.tokenizer_directory)
    if not same_vocabulary(checkpoint, vocabulary):
        raise ConfigError(
            [
                f"{checkpoint}: its vocabulary is not that of {vocabulary.directory}; prepare the "
                f"examples with the checkpoint's own: tokenizer={{kind: existing, "
                f"path: {checkpoint / TOKENIZER}, name: NAME}}"
            ]
        )


def _pieces(directory: Path) -> dict[str, int]:
    path = directory / VOCABULARY_FILE
    try:
        path = model_file(directory)
    except InputError:
        if not path.is_file():
            raise InputError(
                f"{directory}: there is no {TOKENIZER_FILE}, {SENTENCEPIECE_FILE} or "
                f"{VOCABULARY_FILE} that says whose embeddings these are; put the model's there"
            ) from None
        pieces = path.read_text(encoding="utf-8").splitlines()
    else:
        pieces = pieces_of(load_model(path, file_digest(path)))
    return {piece: number for number, piece in enumerate(pieces)}


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _shape(shape: tuple[int, ...] | None) -> str:
    return "nothing" if shape is None else " x ".join(map(str, shape))
