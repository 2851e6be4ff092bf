"""One run over any number of resumes, in W&B's files and in ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_run import Job, records, run_job

from pipeline.sections import TrackingConfig
from pipeline.training.tracking import Tracker, read_metrics


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
    settings = TrackingConfig(mode="disabled")
    tracker = Tracker(tmp_path, settings, run_id="x", configuration={}, first_step=0)
    for step in range(1, 6):
        tracker.train(step, {"loss": float(step)})
    tracker.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "st')  # cut short by a kill

    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
    Tracker(tmp_path, settings, run_id="x", configuration={}, first_step=3).close()
    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 3]
