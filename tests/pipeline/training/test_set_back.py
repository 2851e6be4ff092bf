"""A run set back by hand (``latest`` rewritten) goes on from there and keeps what it saves."""

from __future__ import annotations

from pathlib import Path

from small_run import Job, records, run_job

from pipeline.training.checkpoints.checkpoint import Checkpoints, read_weights

LOCAL = ("train.engine=local", "phases.1.steps=1", "train.keep_checkpoints=3")


def test_run_set_back_to_an_older_checkpoint_keeps_its_newest(recipe: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    run_job(recipe, Job(output, LOCAL))
    checkpoints = Checkpoints(output / "checkpoints")
    reference = records(output, "train")
    (checkpoints.directory / "latest").write_text("step-00000008\n")

    job = Job(output, (*LOCAL, "train.keep_checkpoints=1", "train.save_every=3"), stop_at=10)
    run_job(recipe, job)

    newest = checkpoints.latest()
    assert newest == checkpoints.path(9)
    read_weights(newest)
    assert records(output, "train") == reference[:10]
    run_job(recipe, Job(output, LOCAL))
    assert records(output, "train") == reference
