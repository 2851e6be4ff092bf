"""One run over any number of resumes, in W&B's files and in ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from small_run import Job, records, run_job

from pipeline.sections import TrackingConfig
from pipeline.training.tracking import Tracker, environment, read_metrics
from preprocessing.storage import InputError

NO_TENSORS: dict[str, dict[str, float]] = {"trust_ratio": {}, "weight_norm": {}, "update_norm": {}}


def tracker_in(directory: Path, first_step: int = 0, mode: Any = "disabled") -> Tracker:
    settings = TrackingConfig(mode=mode)
    return Tracker(directory, settings, run_id="x", configuration={}, first_step=first_step)


def test_resumed_run_keeps_its_wandb_id(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    output = tmp_path / "run"
    settings = ("train.engine=local", "phases.1.steps=1", "tracking.mode=auto")
    run_job(recipe, Job(output, settings, stop_at=6))
    run_job(recipe, Job(output, settings))

    run_id = json.loads((output / "run.json").read_text())["run_id"]
    folders = sorted((output / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    assert all(folder.name.endswith(run_id) for folder in folders)
    assert all(list(folder.glob("*.wandb")) for folder in folders)
    assert [record["step"] for record in records(output, "train")] == list(range(1, 14))


def test_records_after_the_resumed_step_are_dropped(tmp_path: Path) -> None:
    tracker = tracker_in(tmp_path)
    for step in range(1, 6):
        tracker.train(step, {"loss": float(step)})
        tracker.tensors(step, **{**NO_TENSORS, "weight_norm": {"wörter": step / 3}})
    tracker.close()
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    with open(path, "ab") as file:
        file.write('{"kind": "tensors", "weight_norm": {"wö'.encode()[:-1])  # cut short by a kill

    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
    tracker = tracker_in(tmp_path, first_step=4)
    assert path.read_bytes() == b"".join(lines[:8])
    tracker.rewind(3)
    tracker.train(4, {"loss": 0.0})
    tracker.close()
    assert path.read_bytes() == b"".join(lines[:6]) + b'{"kind": "train", "step": 4, "loss": 0.0}\n'


def test_tensors_are_told_by_name_and_read_only_where_they_are_asked_for(tmp_path: Path) -> None:
    tracker = tracker_in(tmp_path)
    tracker.tensors(1, **NO_TENSORS)
    tracker.tensors(
        2,
        trust_ratio={"words": 0.5},
        weight_norm={"words": 2.0, "bias": 1.0},
        update_norm={"words": 4.0, "bias": 3.0},
    )
    tracker.event(2, "phase")
    tracker.close()

    assert [record["kind"] for record in read_metrics(tmp_path)] == ["event"]
    assert read_metrics(tmp_path, ["tensors"]) == [
        {
            "kind": "tensors",
            "step": 2,
            "trust_ratio": {"words": 0.5},
            "weight_norm": {"words": 2.0, "bias": 1.0},
            "update_norm": {"words": 4.0, "bias": 3.0},
        }
    ]


def test_tensors_are_histograms_in_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    logged: list[tuple[int, dict[str, Any]]] = []

    class Noted:
        def log(self, values: dict[str, Any], step: int) -> None:
            logged.append((step, values))

        def finish(self) -> None:
            pass

    monkeypatch.setattr(wandb, "init", lambda **settings: Noted())
    tracker = tracker_in(tmp_path, mode="offline")
    tracker.tensors(1, **NO_TENSORS)
    tracker.tensors(2, **{**NO_TENSORS, "trust_ratio": {"a": 0.0, "b": 1.0, "c": 1.0}})
    tracker.close()

    ((step, histograms),) = logged
    assert step == 2
    assert histograms.keys() == {"optimizer/trust_ratio"}
    counts = np.array(histograms["optimizer/trust_ratio"].histogram)
    assert (counts[0], counts[-1], counts.sum()) == (1, 2, 3)


def test_wandb_that_cannot_start_is_told_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    tracker = tracker_in(tmp_path)
    tracker.train(5, {"loss": 1.0})
    tracker.close()
    before = (tmp_path / "metrics.jsonl").read_bytes()

    def refuse(**settings: Any) -> NoReturn:
        raise wandb.errors.CommError("no route to the server")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(InputError, match=r"no route to the server; tracking\.mode=offline keeps"):
        tracker_in(tmp_path, mode="online")
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_training_tells_of_every_tensor_that_lamb_moves(recipe: Path, tmp_path: Path) -> None:
    short = ("train.engine=local", "phases.0.steps=3", "phases.1.steps=1", "train.log_every=2")
    run_job(recipe, Job(tmp_path / "lamb", short))
    run_job(recipe, Job(tmp_path / "adamw", (*short, "optimizer={kind: adamw}")))

    first, last = records(tmp_path / "lamb", "tensors")
    assert (first["step"], last["step"]) == (2, 4)
    (told,) = [record for record in records(tmp_path / "lamb", "train") if record["step"] == 4]
    ratios = sorted(last["trust_ratio"].values())
    assert (ratios[0], ratios[-1]) == (told["trust_ratio_min"], told["trust_ratio_max"])
    assert last["weight_norm"].keys() == last["update_norm"].keys()
    assert last["trust_ratio"].keys() < last["weight_norm"].keys()
    for name, ratio in last["trust_ratio"].items():
        assert ratio == pytest.approx(last["weight_norm"][name] / last["update_norm"][name])
    assert records(tmp_path / "adamw", "tensors") == []


def test_no_credential_of_a_configuration_reaches_wandb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    given: dict[str, Any] = {}

    class Noted:
        def finish(self) -> None:
            pass

    def note(**settings: Any) -> Noted:
        given.update(settings)
        return Noted()

    monkeypatch.setattr(wandb, "init", note)
    monkeypatch.setattr("sys.argv", ["train", "corpus.inputs=[s3://key:hush@bucket/a]"])
    configuration = {"corpus": {"inputs": ["https://ann:hush@host/a.txt"], "workers": 2}}
    settings = TrackingConfig(mode="offline")
    Tracker(tmp_path, settings, run_id="x", configuration=configuration, first_step=0).close()
    assert given["config"] == {"corpus": {"inputs": ["https://***@host/a.txt"], "workers": 2}}
    assert environment()["command"] == "'corpus.inputs=[s3://***@bucket/a]'"
