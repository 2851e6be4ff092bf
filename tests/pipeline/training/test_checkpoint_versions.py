"""A checkpoint of the release before is gone on from; weights of any release are read.

``tests/fixtures/checkpoint_version_1`` was written when the checkpoints' version was 1: a training
of eight steps of a BERT with 1,874 parameters, stopped after its save at step 4, by the local
engine and by DeepSpeed at stage 1 on one rank, with the data it needs and all eight losses.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from small_run import Job, records, run_job, run_jobs

from configs.schema import load
from pipeline.evaluation.language_modeling import evaluate
from pipeline.settings import decode_run
from pipeline.training.checkpoints.checkpoint import (
    Checkpoints,
    read_origin,
    read_state,
    read_weights,
)
from pipeline.training.checkpoints.convert import convert
from preprocessing.storage import InputError

FIXTURE = Path(__file__).parents[2] / "fixtures" / "checkpoint_version_1"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The fixture where it can be written to; returns its recipe."""
    shutil.copytree(FIXTURE, tmp_path, dirs_exist_ok=True)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("{root}", str(tmp_path)))
    return recipe


@pytest.mark.parametrize("engine", ["local", "deepspeed"])
def test_version_1_is_gone_on_from_and_becomes_version_2(old: Path, engine: str) -> None:
    output, settings = old.parent / engine, (f"train.engine={engine}",)
    before = read_state(output / "checkpoints" / "step-00000004")
    assert (before.version, before.step, before.parts) == (1, 4, (0,))
    if engine == "local":
        run_job(old, Job(output, settings))
    else:
        run_jobs(old, [Job(output, settings)], 1)

    losses = json.loads((output / "losses.json").read_text())
    # Measured: equal; other processors may round otherwise.
    assert [record["loss"] for record in records(output, "train")] == pytest.approx(
        losses[4:], rel=1e-7
    )
    newest = Checkpoints(output / "checkpoints").latest()
    assert newest is not None
    assert (read_state(newest).version, newest.name) == (2, "step-00000008")
    changes = [e["change"] for e in records(output, "event") if e["event"] == "change"]
    assert not changes


def test_version_1_is_converted_and_becomes_version_2(old: Path, tmp_path: Path) -> None:
    step_4 = old.parent / "deepspeed" / "checkpoints" / "step-00000004"
    portable = read_state(convert(step_4, tmp_path / "portable"))

    assert (portable.version, portable.engine, portable.step) == (2, "portable", 4)


def test_weights_of_every_version_are_evaluated(old: Path) -> None:
    output = old.parent / "local"
    run = decode_run(load(old, [f"output.directory={output}", "train.engine=local"]))
    (result,) = evaluate(run, None)

    assert result.name == "heldout"
    path = output / "checkpoints" / "step-00000004"
    plain = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**plain, "version": 0}))
    assert evaluate(run, None) == [result]
    with pytest.raises(InputError, match=r"checkpoint version 0; .*versions 1 and 2.*init_from"):
        read_state(path)


def test_damage_that_version_1_can_know_of_is_found(old: Path) -> None:
    weights = old.parent / "local" / "checkpoints" / "step-00000004" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")

    with pytest.raises(InputError, match=r"model\.safetensors: damaged: wrong checksum"):
        run_job(old, Job(old.parent / "local", ("train.engine=local",)))


def test_later_versions_are_refused(old: Path) -> None:
    path = old.parent / "local" / "checkpoints" / "step-00000004"
    plain = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**plain, "version": 3}))

    for read in (read_state, read_origin, read_weights):
        with pytest.raises(
            InputError, match="checkpoint version 3; this lexmill reads versions up"
        ):
            read(path)
