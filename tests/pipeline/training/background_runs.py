"""Trainings that save in the background, what they leave, and how to hold them up."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.training.checkpoints.checkpoint import Checkpoints, State, read_state
from pipeline.training.checkpoints.integrity import find_damage
from pipeline.training.loop import Trainer
from pipeline.training.tracking import read_metrics

BEHIND = "train.asynchronous_saves=true"


def states(output: Path) -> dict[int, State]:
    """The records of all checkpoints, every file of which is as they say."""
    checkpoints = Checkpoints(output / "checkpoints")
    found = {step: read_state(checkpoints.path(step)) for step in checkpoints.steps()}
    for step, state in found.items():
        assert find_damage(checkpoints.path(step), state.files, state.files) is None
    return found


def assert_same_checkpoints(ours: Path, theirs: Path) -> None:
    """Byte for byte, but for the configuration that says how they are saved, and the run's id."""
    found, expected = states(ours), states(theirs)
    assert [*found] == [*expected] != []
    for step, state in found.items():
        differing = {
            name for name, record in expected[step].files.items() if record != state.files.get(name)
        }
        assert differing <= {"config.yaml"}
        assert dataclasses.replace(state, **settings(expected[step])) == expected[step]


def settings(state: State) -> dict[str, Any]:
    """What runs that save differently are told differently."""
    return {"leaves": state.leaves, "run_id": state.run_id, "files": state.files}


@contextmanager
def writes(before: Callable[[Path], None]) -> Iterator[None]:
    """Call ``before(path)`` before a state file is written, by whichever thread."""
    write = torch.save

    def save(state: object, path: Any, *rest: Any, **how: Any) -> None:
        if not isinstance(path, BytesIO):
            before(Path(path))
        write(state, path, *rest, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "save", save)
        yield


@contextmanager
def held_up(step: int, until: int, *, here: bool = True) -> Iterator[None]:
    """Nothing is written of the checkpoint of ``step`` before step ``until`` has begun."""
    begun, train = threading.Event(), Trainer.step

    def wait(path: Path) -> None:
        if here and f"step-{step:08d}" in str(path):
            assert threading.current_thread() is not threading.main_thread()
            assert begun.wait(60)

    def begin(self: Trainer, number: int, fed: Any) -> Any:
        if number == until:
            begun.set()
        return train(self, number, fed)

    with writes(wait), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", begin)
        yield


def told(output: Path) -> list[tuple[str, int]]:
    """Steps and checkpoints in the order in which they were told of."""
    return [
        (record.get("event", "step"), record["step"])
        for record in read_metrics(output)
        if record.get("event", "step") in ("step", "checkpoint", "stopped", "set_back")
        and record["kind"] != "validation"
    ]
