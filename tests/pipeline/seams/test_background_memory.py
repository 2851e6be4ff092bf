"""What a checkpoint written in the background says of streams and guards."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from background_runs import assert_same_checkpoints, held_up, states
from seam_runs import TwinJob, run_twin

from pipeline.training.checkpoints.checkpoint import MEMORY_FILE


def test_guards_and_memory_are_those_of_the_step(recipe: Path, tmp_path: Path) -> None:
    """The guards' losses and the streams' memory go on changing while they are written."""
    rule = "train.stop_if=[{kind: divergence, factor: 100.0, over: 2}]"
    for name, behind in (("waited", False), ("behind", True)):
        settings = ("train.engine=local", rule, f"train.asynchronous_saves={behind}")
        with held_up(2, until=3) if behind else nullcontext():
            run_twin(recipe, TwinJob("stream", tmp_path / name, settings))
    assert_same_checkpoints(tmp_path / "behind", tmp_path / "waited")
    found = states(tmp_path / "behind")
    assert MEMORY_FILE in found[2].files
    assert found[2].guards["losses"] != found[4].guards["losses"]
