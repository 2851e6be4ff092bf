"""Checkpoints: a directory a step, whole or absent, and a pointer to the newest.

    checkpoints/
      latest                     the name of the newest whole checkpoint
      step-00001000/
        deepspeed/               DeepSpeed's own state, a part a rank (or local/state.pt)
        model.safetensors        all weights in fp32
        tokenizer/               tokenizer.json, vocab.txt
        config.yaml              the resolved configuration
        state.json               step, position, digests, and what wrote it

A checkpoint is written under a temporary name, forced to the disk and renamed; ``latest`` changes
after that, and older ones are pruned last.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline.settings import Run
from pipeline.weights import save_weights
from preprocessing.storage import (
    InputError,
    file_digest,
    remove_temporaries,
    rename,
    synchronize,
    write_json,
    write_text,
)

STATE_VERSION = 1
LATEST = "latest"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER = "tokenizer"
CONFIG_FILE = "config.yaml"
_STATE = "state.json"


@dataclass(frozen=True)
class State:
    """Where a training stands.

    Attributes:
        step: optimizer steps done.
        phase, position: the phase of the next step, and its first row in that phase.
        seed: of everything.
        engine, world_size, zero_stage: what wrote the engine's state.
        data: digest of the examples' manifest by phase.
        tokenizer: digest of the tokenizer.
        weights: digest of the weights' file.
        leaves: the configuration, key by key.
        run_id: of the tracked run.
    """

    step: int
    phase: int
    position: int
    seed: int
    engine: str
    world_size: int
    zero_stage: int | None
    data: Mapping[str, str]
    tokenizer: str
    leaves: Mapping[str, Any]
    run_id: str
    weights: str = ""
    version: int = STATE_VERSION
    changes: tuple[str, ...] = field(default=())


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, step: int) -> Path:
        """Where the checkpoint after ``step`` steps stands."""
        return self.directory / f"step-{step:08d}"

    def writing_path(self, step: int) -> Path:
        """Where it is written before it takes its name; the same on every rank."""
        return self.directory / f".step-{step:08d}.writing"

    def latest(self) -> Path | None:
        """The newest whole checkpoint, or None.

        Raises:
            InputError: ``latest`` names a checkpoint that is not there.
        """
        try:
            name = (self.directory / LATEST).read_text().strip()
        except FileNotFoundError:
            return None
        path = self.directory / name
        if not (path / _STATE).exists():
            raise InputError(
                f"{self.directory / LATEST}: names {name}, which is not there; write the name of "
                f"one that is, or remove {self.directory} to start anew"
            )
        return path

    def clear_unfinished(self) -> None:
        """Remove what an interrupted save left."""
        if self.directory.exists():
            remove_temporaries(self.directory)

    def begin(self, step: int) -> Path:
        """An empty place to write a checkpoint to (on one rank)."""
        path = self.writing_path(step)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def complete(
        self, step: int, state: State, run: Run, weights: Mapping[str, Any], tokenizer: Path
    ) -> Path:
        """Add what one rank writes, and make the checkpoint whole (on that rank)."""
        writing = self.writing_path(step)
        save_weights(writing / WEIGHTS_FILE, weights)
        state = dataclasses.replace(state, weights=file_digest(writing / WEIGHTS_FILE))
        shutil.copytree(
            tokenizer, writing / TOKENIZER, ignore=shutil.ignore_patterns(".*", "manifest.json")
        )
        write_text(
            writing / CONFIG_FILE,
            yaml.safe_dump(run.plain(), sort_keys=False, allow_unicode=True),
        )
        write_json(writing / _STATE, dataclasses.asdict(state))
        _synchronize_tree(writing)
        target = self.path(step)
        if target.exists():  # written before, by a run that was then set back
            shutil.rmtree(target)
        rename(writing, target)
        write_text(self.directory / LATEST, target.name + "\n")
        return target

    def prune(self, keep: int, milestone_every: int | None) -> None:
        """Remove all but the newest ``keep`` and the milestones.

        What lies after ``latest`` is of a run that was set back since: it makes none older.
        """
        latest = self.latest()
        assert latest is not None
        paths = [path for path in self.directory.glob("step-*") if path.name <= latest.name]
        steps = sorted(int(path.name[5:]) for path in paths)
        for step in steps[:-keep]:
            if not milestone_every or step % milestone_every:
                shutil.rmtree(self.path(step))


def read_state(checkpoint: Path) -> State:
    """The state file of a checkpoint.

    Raises:
        InputError: missing, damaged, or of another version.
    """
    path = checkpoint / _STATE
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{checkpoint}: not a checkpoint ({_STATE} is missing)") from None
    except ValueError as error:
        raise InputError(f"{path}: damaged: {error}") from None
    if plain.get("version") != STATE_VERSION:
        raise InputError(
            f"{path}: checkpoint version {plain.get('version')}; this lexmill reads version "
            f"{STATE_VERSION}"
        )
    return State(**plain)


def read_weights(checkpoint: Path) -> dict[str, Any]:
    """The weights of a checkpoint, fp32.

    Raises:
        InputError: missing, or not the bytes that were written.
    """
    from safetensors.torch import load_file

    path = checkpoint / WEIGHTS_FILE
    state = read_state(checkpoint)
    if not path.exists():
        raise InputError(f"{path}: missing; this checkpoint is not whole")
    if file_digest(path) != state.weights:
        raise InputError(
            f"{path}: wrong checksum: its bytes are not the ones that were saved; "
            "use an older checkpoint"
        )
    return dict(load_file(str(path)))


def _synchronize_tree(directory: Path) -> None:
    for path in [*directory.rglob("*"), directory]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            synchronize(descriptor)
        finally:
            os.close(descriptor)
