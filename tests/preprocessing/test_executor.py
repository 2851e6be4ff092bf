import errno
import functools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from corpora import make_text, prepare_config, run_stages, tree, write_documents

from preprocessing.commands import STAGES
from preprocessing.executor import run_tasks
from preprocessing.storage import (
    InputError,
)


@pytest.mark.parametrize(
    ("workers", "stages"),
    [(2, ("ingest", "deduplicate", "tokenize", "examples")), (5, ("tokenize",))],
)
def test_any_number_of_workers_gives_the_same_bytes(
    tmp_path: Path, workers: int, stages: tuple[str, ...]
) -> None:
    write_documents(tmp_path / "raw" / "a.txt", make_text(60))
    corpus = {"shard_bytes": 2500}
    alone = prepare_config(tmp_path, corpus=corpus)
    run_stages(alone)
    expected = tree(alone.corpus.directory)
    for stage in stages:
        directory = STAGES[stage][1](alone)[0]().directory
        shutil.rmtree(directory)
        command = [sys.executable, "-m", "preprocessing", stage, str(tmp_path / "recipe.yaml")]
        subprocess.run([*command, f"corpus.workers={workers}"], check=True, timeout=120)
        assert tree(alone.corpus.directory) == expected, stage
    assert sum(path.startswith("tokens/") and ".arrow" in path for path in expected) >= 4


def double(value: int) -> int:
    return 2 * value


def fail_at_three(value: int) -> int:
    if value == 3:
        raise InputError("three is no good")
    return value


def full_at_three(value: int) -> int:
    if value == 3:
        raise OSError(errno.EIO, "Input/output error", "somewhere")
    return value


def die(value: int) -> int:
    import os
    import signal

    if value == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_with_their_indices(workers: int) -> None:
    results = dict(run_tasks(double, list(range(6)), workers))
    assert results == {index: 2 * index for index in range(6)}


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_of_tasks_come_through(workers: int) -> None:
    with pytest.raises(InputError, match="three is no good"):
        list(run_tasks(fail_at_three, list(range(6)), workers))
    with pytest.raises(OSError, match="Input/output error") as caught:
        list(run_tasks(full_at_three, list(range(6)), workers))
    assert caught.value.filename == "somewhere"


def test_killed_worker_says_what_to_do() -> None:
    with pytest.raises(InputError, match=r"a worker process died .*corpus\.workers"):
        list(run_tasks(functools.partial(die), list(range(6)), 2))
