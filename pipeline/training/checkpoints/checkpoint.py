"""Checkpoints: a directory a step, whole or absent, and a pointer to the newest.

    checkpoints/
      latest                     the name of the newest whole checkpoint
      step-00001000/
        deepspeed/               DeepSpeed's own state, a part a rank (or local/state.pt)
        model.safetensors        all weights in fp32
      memory.safetensors       what the model carries on, by stream, if anything
        tokenizer/               tokenizer.json, vocab.txt
        config.yaml              the resolved configuration
        state.json               step, position, digests, and size and digest of every file

A checkpoint is written under a temporary name, forced to the disk and renamed; ``latest`` changes
after that, and older ones are pruned last. What is removed loses its name first, so that nothing
half there ever looks whole.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from configs.schema import digest, load
from pipeline.settings import Run, decode_run
from pipeline.training.checkpoints.integrity import FileRecord, find_damage, force
from pipeline.weights import save_weights
from preprocessing.storage import (
    InputError,
    file_digest,
    remove_temporaries,
    rename,
    write_json,
    write_text,
)

STATE_VERSION = 2
"""Checkpoints of this version and the one before are gone on from; weights of any are read."""
CHECKPOINTS = "checkpoints"
LATEST = "latest"
WEIGHTS_FILE = "model.safetensors"
MEMORY_FILE = "memory.safetensors"
TOKENIZER = "tokenizer"
CONFIG_FILE = "config.yaml"
STATE_FILE = "state.json"


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
        leaves: the configuration, key by key.
        run_id: of the tracked run.
        weights: digest of the weights' file.
        files: every file that stands here beside this record, by its name.
        parts: ranks whose part of the engine's state stands here; where hosts share no directory,
            those of one host.
        skips: ranges ``[from, to)`` of steps that loss spikes made the run pass over.
        guards: what the guards know of the steps so far.
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
    weights: str
    files: Mapping[str, FileRecord]
    parts: tuple[int, ...]
    skips: tuple[tuple[int, int], ...] = ()
    guards: Mapping[str, Any] = field(default_factory=dict)
    version: int = STATE_VERSION


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

    def steps(self) -> list[int]:
        """The steps of all checkpoints that stand here, in order."""
        names = (path.name for path in self.directory.glob("step-*"))
        return sorted(int(name[5:]) for name in names if re.fullmatch(r"step-\d{8,}", name))

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
        if not re.fullmatch(r"step-\d{8,}", name) or not (path / STATE_FILE).exists():
            raise InputError(
                f"{self.directory / LATEST}: names {name}, which is not there; write the name of "
                f"one that is, or remove {self.directory} to start anew"
            )
        return path

    def set_back(self, step: int) -> None:
        """Let a checkpoint be the newest; later ones are replaced as their steps are done again."""
        write_text(self.directory / LATEST, self.path(step).name + "\n")

    def remove(self, step: int) -> None:
        """Remove a checkpoint; at no moment does something half look whole."""
        path = self.path(step)
        doomed = path.with_name(f".{path.name}.removed.writing")
        shutil.rmtree(doomed, ignore_errors=True)
        rename(path, doomed)
        shutil.rmtree(doomed)

    def forget_latest(self) -> None:
        """Let no checkpoint be the newest, before the one that was is replaced."""
        (self.directory / LATEST).unlink(missing_ok=True)

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

    def add(
        self,
        step: int,
        run: Run,
        weights: Mapping[str, Any] | None,
        tokenizer: Path,
        memory: Mapping[str, Any],
    ) -> None:
        """Add what is not the engine's: weights (where this host has them), memory, tokenizer,
        recipe."""
        writing = self.writing_path(step)
        if weights is not None:
            save_weights(writing / WEIGHTS_FILE, weights)
        if memory:
            save_weights(writing / MEMORY_FILE, memory)
        shutil.copytree(
            tokenizer, writing / TOKENIZER, ignore=shutil.ignore_patterns(".*", "manifest.json")
        )
        text = yaml.safe_dump(run.plain(), sort_keys=False, allow_unicode=True)
        (writing / CONFIG_FILE).write_text(text, encoding="utf-8")

    def complete(self, step: int, state: State) -> Path:
        """Make a checkpoint whole whose files are sealed (on one rank), and the newest."""
        writing, target = self.writing_path(step), self.path(step)
        write_json(writing / STATE_FILE, to_record(state))
        for directory in [*filter(Path.is_dir, writing.rglob("*")), writing]:
            force(directory)
        newest = self.latest()
        if newest == target:  # to be fetched anew
            self.forget_latest()
        first = int(newest.name[5:]) + 1 if newest else step
        for abandoned in self.steps():  # written before, by a run that was then set back
            if abandoned == step or first <= abandoned < step:
                self.remove(abandoned)
        rename(writing, target)
        self.set_back(step)
        return target

    def prune(self, keep: int, milestone_every: int | None) -> None:
        """Remove all but the newest ``keep`` and the milestones.

        What lies after ``latest`` is of a run that was set back since: it makes none older.
        """
        latest = self.latest()
        assert latest is not None
        steps = [step for step in self.steps() if self.path(step).name <= latest.name]
        for step in superseded(steps, keep, milestone_every):
            self.remove(step)

    def way_back(self, damaged: Path) -> str:
        """How to go on from the newest whole checkpoint before a damaged one."""
        for step in reversed(self.steps()):
            path = self.path(step)
            if path.name < damaged.name and is_whole(path):
                return (
                    f"the newest one before it that is whole is {path.name}; to go back to it: "
                    f"echo {path.name} > {self.directory / LATEST}"
                )
        return f"none before it is whole; to start anew, remove {self.directory}"


def superseded(steps: Iterable[int], keep: int, milestone_every: int | None) -> list[int]:
    """The steps that are neither among the newest ``keep`` nor milestones."""
    older = sorted(steps)[:-keep]
    return [step for step in older if not milestone_every or step % milestone_every]


def is_whole(checkpoint: Path) -> bool:
    """Whether every file of a checkpoint is as it was saved; reads them all."""
    try:
        state = read_state(checkpoint)
    except InputError:
        return False
    return find_damage(checkpoint, state.files, state.files) is None


def read_state(checkpoint: Path) -> State:
    """The record of a checkpoint that a training can go on from.

    Raises:
        InputError: missing, damaged, or of a version that this lexmill does not go on from.
    """
    path = checkpoint / STATE_FILE
    plain = _read_plain(checkpoint)
    if plain["version"] < STATE_VERSION - 1:
        raise InputError(
            f"{path}: checkpoint version {plain['version']}; this lexmill goes on from versions "
            f"{STATE_VERSION - 1} and {STATE_VERSION}; go on with the release that wrote it, or "
            f"start from its weights: train.init_from.checkpoint={checkpoint}"
        )
    if plain["version"] == 1:
        return _to_state(_from_version_1(checkpoint, plain))
    return parse_record(plain, path)


def to_record(state: State) -> dict[str, Any]:
    """A state as JSON, with a digest of itself."""
    plain = dataclasses.asdict(state)
    return {**plain, "digest": digest(plain)}


def parse_record(record: Any, path: Path | str) -> State:
    """What :func:`to_record` made.

    Raises:
        InputError: it is no longer that.
    """
    try:
        plain = {name: value for name, value in record.items() if name != "digest"}
        if digest(plain) != record["digest"]:
            raise InputError(f"{path}: damaged: it is not the record that was saved")
        return _to_state(plain)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged: not a checkpoint's record ({error!r})") from None


def _to_state(plain: dict[str, Any]) -> State:
    files = {name: FileRecord(**record) for name, record in plain["files"].items()}
    skips = tuple((first, end) for first, end in plain["skips"])
    return State(**{**plain, "files": files, "parts": tuple(plain["parts"]), "skips": skips})


@dataclass(frozen=True)
class Origin:
    """What a checkpoint of any version says of its weights."""

    step: int
    seed: int | None
    weights: str
    tokenizer: str | None


def is_imported(folder: Path) -> bool:
    """Whether ``lexmill import`` wrote a folder: weights, and the model's configuration alone."""
    if (folder / STATE_FILE).exists() or not (folder / WEIGHTS_FILE).exists():
        return False
    try:
        config = yaml.safe_load((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(config, dict) and list(config) == ["model"]


def read_origin(checkpoint: Path) -> Origin:
    """Where the weights of a checkpoint come from, whatever version wrote it.

    Imported ones have no steps, and no seed and tokenizer of ours.

    Raises:
        InputError: the record is missing, damaged, or of a later version.
    """
    if is_imported(checkpoint):
        return Origin(0, None, file_digest(checkpoint / WEIGHTS_FILE), None)
    plain = _read_plain(checkpoint)
    try:
        return Origin(**{name: plain[name] for name in Origin.__dataclass_fields__})
    except KeyError as error:
        raise InputError(f"{checkpoint / STATE_FILE}: damaged: lacks {error}") from None


def read_weights(checkpoint: Path) -> dict[str, Any]:
    """The weights of a checkpoint of any version, fp32.

    Raises:
        InputError: missing, or not the bytes that were written.
    """
    from safetensors.torch import load_file

    path = checkpoint / WEIGHTS_FILE
    origin = read_origin(checkpoint)
    if not path.exists():
        raise InputError(
            f"{path}: missing; without a shared directory it stands on the first host alone, "
            "else this checkpoint is not whole"
        )
    if file_digest(path) != origin.weights:
        raise InputError(
            f"{path}: wrong checksum: its bytes are not the ones that were saved; "
            "use an older checkpoint"
        )
    return dict(load_file(str(path)))


def read_memory(checkpoint: Path) -> dict[str, Any]:
    """What a model carried on from a checkpoint's last step, by stream; empty where nothing."""
    from safetensors.torch import load_file

    path = checkpoint / MEMORY_FILE
    return dict(load_file(str(path))) if path.exists() else {}


def _read_plain(checkpoint: Path) -> dict[str, Any]:
    path = checkpoint / STATE_FILE
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{checkpoint}: not a checkpoint ({STATE_FILE} is missing)") from None
    except ValueError as error:
        raise InputError(f"{path}: damaged: {error}") from None
    version = plain.get("version") if isinstance(plain, dict) else None
    if not isinstance(version, int):
        raise InputError(f"{path}: damaged: it says no version")
    if version > STATE_VERSION:
        raise InputError(
            f"{path}: checkpoint version {version}; this lexmill reads versions up to "
            f"{STATE_VERSION}; use the release that wrote it, or a later one"
        )
    return dict(plain)


def _from_version_1(checkpoint: Path, plain: dict[str, Any]) -> dict[str, Any]:
    """The record as version 2 would have written it, but that it knows the weights' digest alone.

    Keys that the configuration had not then are in effect by their defaults.
    """
    weights = checkpoint / WEIGHTS_FILE
    size = weights.stat().st_size if weights.exists() else 0
    run = decode_run(load(checkpoint / CONFIG_FILE))
    leaves = {key: value for key, (value, _) in run.resume_leaves().items()}
    known = {name: value for name, value in plain.items() if name != "changes"}
    return {
        **known,
        "leaves": {**leaves, **known["leaves"]},
        "files": {WEIGHTS_FILE: {"size": size, "digest": known["weights"]}},
        "parts": list(range(known["world_size"])),
        "skips": [],
        "guards": {},
    }
