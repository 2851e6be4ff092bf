"""Trainings as people start them: real launchers, real processes, and real kills."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest
import torch
from small_run import TOTAL_STEPS, records, weights

from launchers.local import deepspeed_command, free_port
from pipeline import train
from pipeline.training.checkpoints.checkpoint import Checkpoints, read_state
from pipeline.training.checkpoints.integrity import find_damage
from pipeline.training.tracking import read_metrics

SCRIPT = Path(train.__file__)
LIMIT = 120.0
"""Seconds that a start, or what is waited for in it, may take; measured: 8 to 12."""


class Launch:
    """A started command in a process group of its own; what it says goes to a file."""

    def __init__(self, words: Sequence[str], log: Path, environment: dict[str, str]) -> None:
        self._log = log
        with open(log, "wb") as file:
            self._process = subprocess.Popen(
                words,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def family(self) -> list[psutil.Process]:
        """The process and all its descendants."""
        this = psutil.Process(self._process.pid)
        return [this, *this.children(recursive=True)]

    def wait(self) -> int:
        return self._process.wait(LIMIT)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return as soon as the condition holds; it must hold before the command ends."""
        deadline = time.monotonic() + LIMIT
        while not condition():
            assert self._process.poll() is None, f"ended before it could be killed:\n{self.log}"
            assert time.monotonic() < deadline, self.log
            time.sleep(0.002)

    def kill(self) -> None:
        """SIGKILL the whole group; nothing of it may survive."""
        family = self.family()
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(LIMIT)
        assert not survivors(family)

    def clean_up(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(LIMIT)


def survivors(processes: list[psutil.Process]) -> list[psutil.Process]:
    """The processes that still run some seconds later."""
    deadline = time.monotonic() + 10
    while alive := [process for process in processes if _runs(process)]:
        if time.monotonic() > deadline:
            return alive
        time.sleep(0.05)
    return []


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


Start = Callable[..., Launch]


@pytest.fixture(scope="module")
def start(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts a training of the small recipe: by ``deepspeed`` on two ranks, or by given words."""
    logs = tmp_path_factory.mktemp("logs")
    launches: list[Launch] = []

    def start(
        output: Path, *overrides: str, by: Sequence[str] = (), accelerator: str | None = "cpu"
    ) -> Launch:
        overrides = (f"output.directory={output}", *overrides)
        words = (*by, str(recipe), *overrides)
        if not by:
            words = deepspeed_command(SCRIPT, str(recipe), overrides, 2, gpus=False).words
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment.pop("DS_ACCELERATOR", None)
        if accelerator is not None:
            environment["DS_ACCELERATOR"] = accelerator
        launches.append(Launch(words, logs / f"{len(launches)}.txt", environment))
        return launches[-1]

    yield start
    for launch in launches:
        launch.clean_up()


@pytest.fixture(scope="module")
def undisturbed(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody kills, started as typed: without saying which accelerator it is."""
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    launch = start(output, accelerator="cpu" if torch.cuda.is_available() else None)
    assert launch.wait() == 0, launch.log
    return output


def steps_done(output: Path) -> int:
    return max((r["step"] for r in read_metrics(output) if r["kind"] == "train"), default=0)


def resumed_at(output: Path) -> list[int]:
    return [e["step"] for e in records(output, "event") if e["event"] == "resume"]


def assert_same_run(output: Path, undisturbed: Path) -> None:
    """Every training and validation record, and the last weights, bit for bit."""
    for kind in ("train", "validation"):
        assert records(output, kind) == records(undisturbed, kind)
    ours, reference = weights(output), weights(undisturbed)
    assert ours.keys() == reference.keys()
    assert all(ours[name].equal(reference[name]) for name in reference)


def test_launcher_trains_on_two_ranks(undisturbed: Path) -> None:
    started, *_ = records(undisturbed, "event")

    assert (started["event"], started["ranks"], started["engine"]) == ("start", 2, "deepspeed")
    assert [record["step"] for record in records(undisturbed, "train")] == [*range(1, 21)]
    assert (undisturbed / "checkpoints" / "latest").read_text() == "step-00000020\n"


def test_run_killed_in_the_middle_ends_as_if_it_had_not_been(
    start: Start, undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    launch = start(output)
    launch.wait_for(lambda: steps_done(output) >= 10)
    launch.kill()
    assert steps_done(output) < TOTAL_STEPS

    launch = start(output)
    assert launch.wait() == 0, launch.log
    assert resumed_at(output)[0] in (8, 12, 16)
    assert_same_run(output, undisturbed)


def assert_acknowledged_saves_stand(output: Path) -> int:
    """``latest`` is whole and no older than what the run told of; returns its step."""
    told = [e["step"] for e in read_metrics(output) if e.get("event") == "checkpoint"]
    newest = Checkpoints(output / "checkpoints").latest()
    if newest is None:
        assert not told
        return 0
    state = read_state(newest)
    assert find_damage(newest, state.files, state.files) is None
    assert state.step >= max(told, default=0)
    return state.step


@pytest.mark.slow
def test_run_killed_25_times_ends_as_if_it_had_not_been(start: Start, tmp_path: Path) -> None:
    """Kills anywhere between the first process and the last step, and every third while saving.

    It saves after every step, and after each kill the newest checkpoint is read and compared.
    """
    output, checkpoints = tmp_path / "run", tmp_path / "run" / "checkpoints"
    settings = ("train.save_every=1", "phases.0.steps=60", "phases.1.steps=60")
    undisturbed = start(tmp_path / "undisturbed", *settings)
    assert undisturbed.wait() == 0, undisturbed.log
    chooser = random.Random(5)
    cut_off, standing = 0, [0]
    for number in range(25):
        launch = start(output, *settings)
        if number % 3 == 0:
            launch.wait_for(lambda: any(checkpoints.glob(".step-*.writing")))
            time.sleep(chooser.uniform(0, 0.05))
        elif number % 3 == 1:
            aim = steps_done(output) + 1
            launch.wait_for(lambda aim=aim: steps_done(output) >= aim)  # type: ignore[misc]
            time.sleep(chooser.uniform(0, 0.1))
        else:
            time.sleep(chooser.uniform(0, 8))
        launch.kill()
        cut_off += any(checkpoints.glob(".step-*.writing"))
        standing.append(assert_acknowledged_saves_stand(output))
    assert standing == sorted(standing)
    assert standing[-1] < 120

    launch = start(output, *settings)
    assert launch.wait() == 0, launch.log
    assert cut_off >= 5
    assert not list(checkpoints.glob(".*writing"))
    assert_same_run(output, tmp_path / "undisturbed")


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_one_killed_rank_ends_the_launcher_and_the_run_goes_on_later(
    start: Start, undisturbed: Path, tmp_path: Path, victim: int
) -> None:
    output = tmp_path / "run"
    launch = start(output)
    launch.wait_for(lambda: steps_done(output) >= 6)
    family = launch.family()
    (rank,) = (
        process
        for process in family
        if f"--local_rank={victim}" in process.cmdline() and str(SCRIPT) in process.cmdline()[:3]
    )
    rank.kill()

    assert launch.wait() != 0
    assert not survivors(family)
    launch = start(output)
    assert launch.wait() == 0, launch.log
    assert resumed_at(output)[0] in (4, 8, 12, 16)
    assert_same_run(output, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("by", "ranks"),
    [
        ((sys.executable, str(SCRIPT), "--local_rank=0"), 1),
        ((sys.executable, "-m", "pipeline.train"), 1),
        ((sys.executable, "-m", "pipeline.cli", "train"), 1),
        (
            (
                *(sys.executable, "-m", "deepspeed.launcher.runner", "--num_accelerators=2"),
                *(f"--master_port={free_port()}", "--module", "pipeline.train"),
            ),
            2,
        ),
        (
            (
                *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"),
                *(f"--master-port={free_port()}", str(SCRIPT)),
            ),
            2,
        ),
    ],
    ids=["script", "module", "lexmill", "deepspeed-module", "torchrun"],
)
def test_other_ways_to_start_see_the_same_examples(
    start: Start, undisturbed: Path, tmp_path: Path, by: tuple[str, ...], ranks: int
) -> None:
    launch = start(tmp_path / "run", "phases.0.steps=3", "phases.1.steps=1", by=by)

    assert launch.wait() == 0, launch.log
    assert records(tmp_path / "run", "event")[0]["ranks"] == ranks
    seen = [record["fingerprint"] for record in records(tmp_path / "run", "train")]
    reference = [record["fingerprint"] for record in records(undisturbed, "train")]
    assert seen == [*reference[:3], reference[12]]


@pytest.mark.slow
def test_bad_input_ends_every_rank_with_its_exit_code(start: Start, tmp_path: Path) -> None:
    launch = start(tmp_path / "run", "phases.0.batch_rows=80000")

    assert launch.wait() == 2
    assert "training rows are fewer than one step takes" in launch.log
    assert "Traceback" not in launch.log
    assert not (tmp_path / "run").exists()
