import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from corpora import tree
from every_form import Made, differing
from tasks_for_workers import (
    break_at_three,
    die_at_three,
    die_once,
    double,
    fail_at_three,
    fail_twice,
    raise_unfoldable,
)

from preprocessing.commands import STAGES
from preprocessing.errors import WorkerLostError
from preprocessing.executors import base
from preprocessing.executors.local import LocalExecutor
from preprocessing.storage import InputError


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "FIRST_PAUSE", 0.0)


@pytest.mark.parametrize("workers", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_any_number_of_workers_gives_the_same_bytes(
    every_form: Made, tmp_path: Path, workers: int
) -> None:
    driver = (
        "import sys; from preprocessing.console import main\n"
        "if __name__ == '__main__':\n"
        f"    for stage in {tuple(STAGES)}:\n"
        "        if code := main([stage, *sys.argv[1:]]): sys.exit(code)\n"
    )
    (tmp_path / "driver.py").write_text(driver)
    options = [f"corpus.directory={tmp_path / 'data'}", f"corpus.workers={workers}"]
    command = [sys.executable, "driver.py", str(every_form.folder / "recipe.yaml"), *options]
    environment = os.environ | {"PYTHONHASHSEED": str(workers)}
    subprocess.run(command, check=True, timeout=240, cwd=tmp_path, env=environment)
    assert differing(tree(tmp_path / "data"), every_form.files) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_with_their_indices(workers: int) -> None:
    results = dict(LocalExecutor(workers).run(double, list(range(6))))
    assert results == {index: 2 * index for index in range(6)}


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_of_tasks_come_through_at_once(
    workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    executor = LocalExecutor(workers, retries=5)
    with pytest.raises(InputError, match="three is no good"):
        list(executor.run(fail_at_three, list(range(6))))
    with pytest.raises(OSError, match="Input/output error") as caught:
        list(executor.run(break_at_three, list(range(6))))
    assert caught.value.filename == "somewhere"
    assert "try" not in capsys.readouterr().err, "data that is no good stays so"


def test_error_of_a_worker_tells_its_place_and_no_secret() -> None:
    with pytest.raises(RuntimeError, match=r"UnfoldableError: token=\*\*\*"):
        list(LocalExecutor(2).run(raise_unfoldable, [0, 1]))
    with pytest.raises(InputError) as caught:
        list(LocalExecutor(2).run(fail_at_three, [3, 3]))
    (note,) = caught.value.__notes__
    assert "in fail_at_three" in note


def test_killed_worker_says_what_to_do() -> None:
    with pytest.raises(WorkerLostError, match=r"a worker process died \(SIGKILL.*corpus\.workers"):
        list(LocalExecutor(2).run(functools.partial(die_at_three), list(range(6))))


def test_killed_worker_loses_its_own_task_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = dict(LocalExecutor(2, retries=1).run(die_once, [(tmp_path, i) for i in range(6)]))
    assert results == {index: index for index in range(6)}
    begun = {index: len((tmp_path / f"began-{index}").read_text()) for index in range(6)}
    assert begun == {0: 1, 1: 1, 2: 1, 3: 2, 4: 1, 5: 1}
    assert "task 3: a worker process died" in capsys.readouterr().err


def test_task_that_always_kills_its_worker_ends_the_work(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen = []
    results = LocalExecutor(2, retries=2).run(die_at_three, list(range(6)))
    with pytest.raises(WorkerLostError):
        seen.extend(index for index, _ in iter(results))
    assert set(seen) <= {0, 1, 2, 4, 5}
    assert capsys.readouterr().err.count("task 3") == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_network_that_comes_back_is_waited_for(tmp_path: Path, workers: int) -> None:
    tasks = [(tmp_path, index) for index in range(3)]
    with pytest.raises(ConnectionResetError):
        list(LocalExecutor(workers, retries=1).run(fail_twice, tasks))
    (tmp_path / "began-1").unlink()
    results = dict(LocalExecutor(workers, retries=2).run(fail_twice, tasks))
    assert results == {0: 0, 1: 1, 2: 2}


def test_pauses_grow_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "FIRST_PAUSE", 1.0)
    counts = base.Retries(9)
    error = TimeoutError("no answer")
    assert [counts.pause(0, error) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert counts.pause(1, error) == 1
