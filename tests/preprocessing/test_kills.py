"""SIGKILL at any moment to a stage and its workers: started again, the bytes are the same."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from corpora import LENIENT, make_text, prepare_config, run_stages, tree, write_documents

DRIVER = """
import signal
import sys

from preprocessing.console import main

if __name__ == "__main__":
    # Shells start background jobs with SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stage in ("ingest", "clean", "deduplicate", "tokenizer", "tokenize", "examples"):
        if code := main([stage, sys.argv[1], "corpus.workers=2"]):
            sys.exit(code)
"""


def start(folder: Path) -> subprocess.Popen[bytes]:
    """All stages, one after the other, in a process group of their own."""
    return subprocess.Popen(
        [sys.executable, str(folder / "driver.py"), str(folder / "recipe.yaml")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def descendants(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def assert_gone(processes: list[psutil.Process]) -> None:
    """No process outlives its parent by more than 5 seconds."""
    deadline = time.monotonic() + 5
    while alive(processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(processes)


def kill_at_random(folder: Path, output: Path, kills: int, seed: int, longest: float) -> int:
    """Start and kill until so many kills came before the end; returns how many did.

    A run that ended before its kill has nothing left to do: its output is removed, and the next
    one begins anew.
    """
    draw = random.Random(seed)
    hits = 0
    for _ in range(6 * kills):
        if hits == kills:
            break
        process = start(folder)
        time.sleep(draw.uniform(0.3, longest))
        workers = descendants(process)
        ended = process.poll() is not None
        hits += not ended
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)  # the parent alone: workers must notice
        process.wait()
        assert_gone(workers)
        assert process.stderr is not None
        process.stderr.close()
        if ended:
            shutil.rmtree(output)
    return hits


@pytest.mark.parametrize(
    ("kills", "documents"),
    [(4, 60), pytest.param(60, 300, marks=pytest.mark.slow)],
    ids=["some", "many"],
)
def test_killed_at_random_moments_and_started_again(
    tmp_path: Path, kills: int, documents: int
) -> None:
    write_documents(tmp_path / "raw" / "a.txt", make_text(documents))
    preparation = prepare_config(tmp_path, corpus={"shard_bytes": 3000, "clean": LENIENT})
    run_stages(preparation)
    undisturbed = tree(preparation.corpus.directory)
    shutil.rmtree(preparation.corpus.directory)
    (tmp_path / "driver.py").write_text(DRIVER)

    output = preparation.corpus.directory
    assert kill_at_random(tmp_path, output, kills, seed=kills, longest=5.0) == kills
    process = start(tmp_path)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()
    assert tree(preparation.corpus.directory) == undisturbed


def test_interrupt_ends_workers_and_says_what_is_kept(tmp_path: Path) -> None:
    write_documents(tmp_path / "raw" / "a.txt", make_text(400))
    prepare_config(tmp_path, corpus={"shard_bytes": 1024})
    (tmp_path / "driver.py").write_text(DRIVER)
    process = start(tmp_path)
    deadline = time.monotonic() + 30
    while len(descendants(process)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = descendants(process)
    assert len(workers) >= 2
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C does
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err.decode()
    assert b"interrupted; what is finished is kept" in err
    assert b"Traceback" not in err
    assert_gone(workers)
    assert not list(tmp_path.rglob("*.writing"))
