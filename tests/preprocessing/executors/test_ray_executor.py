"""Ray: a two-node cluster in this machine, one for all cases, and one that a driver starts."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from corpora import make_text, prepare_config, run_stages, stage_makers, tree, write_documents
from every_form import Made, differing
from tasks_for_workers import die_at_three, die_once, double, fail_at_three, fail_twice, slow

from preprocessing.errors import WorkerLostError
from preprocessing.executors import RayConfig, base, open_executor
from preprocessing.executors.ray_cluster import RayExecutor
from preprocessing.stage import run_stage
from preprocessing.storage import InputError

ray = pytest.importorskip("ray", reason="Ray is not installed")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        cluster = Cluster(
            initialize_head=True, head_node_args={**small, "include_dashboard": False}
        )
        cluster.add_node(**small)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def executor(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayExecutor]:
    monkeypatch.setattr(base, "FIRST_PAUSE", 0.0)
    opened = open_executor(RayConfig(kind="ray", address=cluster.address), workers=2, retries=2)
    assert isinstance(opened, RayExecutor)
    yield opened
    opened.close()


def test_results_and_errors_come_through(executor: RayExecutor, tmp_path: Path) -> None:
    assert dict(executor.run(double, list(range(20)))) == {i: 2 * i for i in range(20)}
    assert dict(executor.run(double, [])) == {}
    with pytest.raises(InputError, match="three is no good") as caught:
        list(executor.run(fail_at_three, list(range(6))))
    assert "in fail_at_three" in caught.value.__notes__[0]
    tasks = [(tmp_path, index) for index in range(3)]
    assert dict(executor.run(fail_twice, tasks)) == {0: 0, 1: 1, 2: 2}


@pytest.mark.slow
def test_killed_worker_is_replaced_as_often_as_was_said(
    executor: RayExecutor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = dict(executor.run(die_once, [(tmp_path, index) for index in range(6)]))
    assert results == {index: index for index in range(6)}
    assert len((tmp_path / "began-3").read_text()) == 2
    with pytest.raises(WorkerLostError, match="a Ray worker or its node was lost"):
        list(executor.run(die_at_three, list(range(4))))
    assert "task 3: a Ray worker or its node was lost" in capsys.readouterr().err


@pytest.mark.slow
def test_tasks_of_a_lost_node_are_done_by_the_others(
    cluster: Any, executor: RayExecutor, tmp_path: Path
) -> None:
    node = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    cluster.wait_for_nodes()
    three = RayExecutor(cluster.address, workers=3, retries=2)
    lost: list[float] = []

    def lose() -> None:
        while not (tmp_path / f"node-{node.node_id}").exists():
            time.sleep(0.02)
        cluster.remove_node(node, allow_graceful=False)
        lost.append(time.monotonic())

    thread = threading.Thread(target=lose)
    thread.start()
    tasks = [(tmp_path, index) for index in range(24)]
    results = dict(three.run(slow, tasks))
    thread.join()
    three.close()
    assert results == {index: index for index in range(24)}
    assert lost
    again = [index for index in range(24) if len((tmp_path / f"began-{index}").read_text()) > 1]
    assert again, "a task was under way on the node"


def test_read_and_cleaned_text_is_the_same(
    executor: RayExecutor, every_form: Made, tmp_path: Path
) -> None:
    corpus = every_form.elsewhere(tmp_path / "data")
    for name in ("ingest", "clean"):
        run_stage(stage_makers(corpus)[name](), executor=executor, quiet=True)
    found = tree(corpus.corpus.directory)
    begun = {name for name in every_form.files if name.startswith(("documents/", "filtered/"))}
    assert found.keys() == begun
    assert differing(found, {name: every_form.files[name] for name in begun}) == []


@pytest.mark.slow
def test_whole_road_gives_the_same_bytes(
    executor: RayExecutor, every_form: Made, tmp_path: Path
) -> None:
    corpus = every_form.elsewhere(tmp_path / "data")
    for make in stage_makers(corpus).values():
        run_stage(make(), executor=executor, quiet=True)
    assert differing(tree(corpus.corpus.directory), every_form.files) == []


def test_no_cluster_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = RayExecutor("127.0.0.1:1", workers=1, retries=0)
    with pytest.raises(InputError, match=r"no Ray cluster at 127\.0\.0\.1:1"):
        list(nowhere.run(double, [1]))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install lexmill\[ray\]"):
        list(RayExecutor(None, workers=1, retries=0).run(double, [1]))


@pytest.mark.slow
def test_local_cluster_ends_with_its_killed_driver(tmp_path: Path) -> None:
    write_documents(tmp_path / "raw" / "a.txt", make_text(400))
    corpus = prepare_config(tmp_path, corpus={"shard_bytes": 1024})
    command = [sys.executable, "-m", "preprocessing", "ingest", str(tmp_path / "recipe.yaml")]
    options = ["corpus.executor.kind=ray", "corpus.workers=2"]
    process = subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL)
    records = corpus.documents_directory / ".records"
    deadline = time.monotonic() + 60
    while len(list(records.glob("task-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None
    begun = psutil.Process(process.pid).children(recursive=True)
    assert len(begun) >= 3
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(begun, timeout=120)  # Ray's agents take a minute to notice
    assert not [one.name() for one in alive if one.status() != psutil.STATUS_ZOMBIE]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert all(line.startswith("ingest: ") for line in done.stderr.splitlines()), done.stderr
    sliced = tree(corpus.documents_directory)
    shutil.rmtree(corpus.documents_directory)
    run_stages(corpus, ["ingest"])
    assert tree(corpus.documents_directory) == sliced
