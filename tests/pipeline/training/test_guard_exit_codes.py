"""How guarded trainings end for those who start them: exit codes, and each reason told once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import records

from launchers.local import deepspeed_command
from pipeline import train
from pipeline.training.checkpoints.checkpoint import Checkpoints

pytestmark = pytest.mark.slow
SHORT = ("train.evaluate_every=100", "train.save_every=2")
RULE = "train.stop_if=[{kind: not_below, loss: 0.5, step: 5, over: 2}]"


def launch(recipe: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """A training on two ranks, by the launcher."""
    words = deepspeed_command(Path(train.__file__), str(recipe), overrides, 2, gpus=False).words
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    return subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_stopped_run_ends_with_1_and_says_why_once(recipe: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"

    ended = launch(recipe, f"output.directory={output}", *SHORT, RULE)

    assert ended.returncode == 1, ended.stderr
    assert (ended.stdout + ended.stderr).count("not below 0.5; the checkpoints before it") == 1
    stopped = [event for event in records(output, "event") if event["event"] == "stopped"]
    assert [event["step"] for event in stopped] == [5]
    checkpoints = Checkpoints(output / "checkpoints")
    assert checkpoints.latest() == checkpoints.path(4)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.skip=[[4, 4]]", "skip takes ranges"),  # while the recipe is read
        ("phases.0.batch_rows=4000", "fewer than one step takes"),  # by all ranks together
    ],
)
def test_refusal_ends_with_2_and_is_told_once(
    recipe: Path, tmp_path: Path, override: str, told: str
) -> None:
    ended = launch(recipe, f"output.directory={tmp_path / 'run'}", override)

    assert ended.returncode == 2, ended.stderr
    assert (ended.stdout + ended.stderr).count(told) == 1


def test_lexmill_run_and_train_end_with_1(recipe: Path, tmp_path: Path) -> None:
    settings = (f"output.directory={tmp_path / 'run'}", "train.engine=local", *SHORT, RULE)
    for command in ("train", "run"):
        ended = subprocess.run(
            [sys.executable, "-m", "pipeline.cli", command, str(recipe), *settings],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

        assert ended.returncode == 1, ended.stderr
        assert ended.stderr.count("stopped after step 5: the loss is ") == 1
