"""The whole road with its output in an object store: the same bytes as on a disk."""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from corpora import (
    make_text,
    prepare_config,
    run_stages,
    stage_makers,
    tree,
    write_documents,
)
from s3_proxy import BUCKET, Fault, FaultProxy, s3_server

from preprocessing import locks, records, remote
from preprocessing.executors.slices import TaskSlice
from preprocessing.locks import BusyError, exclusive, shared
from preprocessing.places import RemotePath, to_place
from preprocessing.settings import Preparation
from preprocessing.stage import run_slice, run_stage
from preprocessing.storage import InputError, atomic_write


class PowerCutError(BaseException):
    """Nothing after this happens."""


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(remote, "LIMIT", 5.0)
    monkeypatch.setattr(locks, "PATIENCE", 0.2)


@pytest.fixture
def memory() -> Iterator[Any]:
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs[:] = [""]
    yield store
    store.store.clear()


@pytest.fixture(scope="module")
def server() -> Iterator[FaultProxy]:
    with s3_server() as proxy:
        yield proxy


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    write_documents(tmp_path / "raw" / "a.txt", make_text(30))
    return tmp_path


CORPUS = {"shard_bytes": 2500}


@pytest.fixture
def expected(raw: Path) -> dict[str, bytes]:
    """What a disk holds in the end."""
    preparation = prepare_config(raw, corpus=CORPUS)
    run_stages(preparation)
    return without_locks(tree(preparation.corpus.directory))


def without_locks(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if not name.endswith(".lock")}


def far_tree(directory: Path) -> dict[str, bytes]:
    assert isinstance(directory, RemotePath)
    return {str(path).removeprefix(f"{directory}/"): path.read_bytes() for path in directory.find()}


def far(raw: Path, url: str) -> Preparation:
    return prepare_config(raw, corpus={**CORPUS, "directory": url})


def test_memory_holds_what_a_disk_holds(raw: Path, memory: Any, expected: dict[str, bytes]) -> None:
    preparation = far(raw, "memory://bucket/data")
    assert {outcome.status for outcome in run_stages(preparation)} == {"made"}
    assert far_tree(preparation.corpus.directory) == expected
    assert {outcome.status for outcome in run_stages(preparation)} == {"up to date"}
    assert far_tree(preparation.corpus.directory) == expected


def test_slices_far_away(raw: Path, memory: Any, expected: dict[str, bytes]) -> None:
    preparation = far(raw, "memory://bucket/data")
    for make in stage_makers(preparation).values():
        for index in range(2):
            run_slice(make(), TaskSlice(index, 2), quiet=True)
        run_stage(make(), merge=True, quiet=True)
    assert far_tree(preparation.corpus.directory) == expected


def test_cut_at_every_request_and_started_again(
    raw: Path, memory: Any, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    preparation = far(raw, "memory://bucket/data")
    run_stages(preparation)
    plain = remote.ask
    number = fail_at = 0
    dead = False

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal number, dead
        number += 1
        if dead or number == fail_at:
            dead = True
            raise PowerCutError
        return plain(*arguments, **options)

    monkeypatch.setattr(remote, "ask", counted)
    monkeypatch.setattr(locks, "_is_dead", lambda marker: True)  # its process is no more
    for name, make in stage_makers(preparation).items():
        directory = make().directory
        assert isinstance(directory, RemotePath)
        below = str(directory).removeprefix(f"{preparation.corpus.directory}/") + "/"
        own = {path: data for path, data in expected.items() if path.startswith(below)}
        fail_at, cuts = 1, 0
        while True:
            number, dead = 0, True
            memory.rm(str(directory).removeprefix("memory:/"), recursive=True)
            number, dead = 0, False
            try:
                run_stage(make(), quiet=True)
            except PowerCutError:
                cuts += 1
            else:
                fail_at = 0
                break
            number, dead, cut_at, fail_at = 0, False, fail_at, 0
            run_stage(make(), quiet=True)
            made = far_tree(preparation.corpus.directory)
            assert {p: d for p, d in made.items() if p.startswith(below)} == own, (name, cut_at)
            fail_at = cut_at + 1 + cut_at // 6
        assert cuts >= 8, name
        assert far_tree(preparation.corpus.directory) == expected


def test_two_writers_far_away(raw: Path, memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    place = to_place("memory://bucket/data")
    with exclusive(place):
        for other in (exclusive, shared):
            refused = pytest.raises(BusyError, match=r"writing here \(process \d+ on")
            with refused, other(place):
                pass
    with shared(place), shared(place), pytest.raises(BusyError), exclusive(place):
        pass
    assert not memory.find("/bucket"), "markers go"

    monkeypatch.setattr(locks, "BEAT", 0.05)
    marker = '{"host": "elsewhere", "pid": 1, "shared": false, "alive_at": %f}'
    import time

    memory.pipe_file("/bucket/data/.lock/a.json", (marker % time.time()).encode())
    with pytest.raises(BusyError, match="process 1 on elsewhere"), exclusive(place):
        pass
    memory.pipe_file("/bucket/data/.lock/a.json", (marker % (time.time() - 999)).encode())
    with exclusive(place):
        (own,) = memory.find("/bucket/data/.lock")
        first = memory.cat_file(own)
        deadline = time.monotonic() + 5
        while memory.cat_file(own) == first and time.monotonic() < deadline:
            time.sleep(0.02)
        assert memory.cat_file(own) != first, "a sign of life"


@pytest.mark.parametrize("kind", ["errors", pytest.param("cuts", marks=pytest.mark.slow)])
def test_s3_with_faults(
    raw: Path, server: FaultProxy, expected: dict[str, bytes], kind: str
) -> None:
    faults: list[Fault] = ["500", "503", "drop"] if kind == "errors" else ["cut", "slow"]

    def plan(number: int, method: str, path: str) -> Fault | None:
        if kind == "cuts" and number - first in (40, 41, 120):
            return "silent"
        return faults[number % len(faults)] if number % 13 == 12 else None

    preparation = far(raw, f"s3://{BUCKET}/{kind}")
    server.happened.clear()
    first = len(server.requests)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "LIMIT", 3.0)
        server.plan = plan
        try:
            run_stages(preparation)
        finally:
            server.plan = lambda number, method, path: None
    assert len(server.happened) > 10
    assert far_tree(preparation.corpus.directory) == expected


@pytest.mark.slow
def test_s3_from_worker_processes_that_are_killed(
    raw: Path, server: FaultProxy, expected: dict[str, bytes]
) -> None:
    url = f"s3://{BUCKET}/workers"
    far(raw, url)
    driver = (
        "import sys; from preprocessing.console import main\n"
        "if __name__ == '__main__':\n"
        "    for stage in ('ingest', 'deduplicate', 'tokenizer', 'tokenize', 'examples'):\n"
        "        if code := main([stage, *sys.argv[1:]]): sys.exit(code)\n"
    )
    (raw / "driver.py").write_text(driver)
    command = [sys.executable, "driver.py", "recipe.yaml", "corpus.workers=2"]
    for seconds in (2.5, 4.0):
        process = subprocess.Popen(command, cwd=raw, stderr=subprocess.DEVNULL)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    done = subprocess.run(command, cwd=raw, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    assert secret not in done.stderr
    made = far_tree(to_place(url))
    assert sorted(made) == sorted(expected)
    assert [name for name in made if made[name] != expected[name]] == []
    assert not [name for name, data in made.items() if secret.encode() in data]


def test_s3_that_is_gone_ends_with_a_sentence(
    raw: Path, server: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PAUSES", (0.0,))
    server.plan = lambda number, method, path: "503"
    try:
        with pytest.raises(InputError, match=rf"s3://{BUCKET}/gone.*could not .*start again"):
            run_stages(far(raw, f"s3://{BUCKET}/gone"), ["ingest"])
    finally:
        server.plan = lambda number, method, path: None


def test_slices_started_together_far_away(
    raw: Path, memory: Any, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 30.0)
    preparation = far(raw, "memory://bucket/data")
    ingest = stage_makers(preparation)["ingest"]
    barrier = threading.Barrier(4)
    outcomes: list[Any] = []

    def work(index: int) -> None:
        stage = ingest()
        barrier.wait()
        outcomes.append(run_slice(stage, TaskSlice(index, 4), quiet=True))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 4
    run_stage(ingest(), merge=True, quiet=True)
    made = far_tree(preparation.documents_directory)
    assert made == {
        name.removeprefix("documents/"): data
        for name, data in expected.items()
        if name.startswith("documents/")
    }


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_overwriting_far_away_can_be_cut(
    raw: Path, memory: Any, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    run_stages(far(raw, "memory://bucket/data"), ["ingest"])
    url = "memory://bucket/data"
    changed = prepare_config(raw, corpus={"directory": url, "shard_bytes": 2048})
    left = [kept]

    def cut(removing: Any) -> Any:
        def remove(path: RemotePath, *arguments: Any, **options: Any) -> None:
            if ".lock" not in path.parts:
                if not left[0]:
                    raise PowerCutError
                left[0] -= 1
            removing(path, *arguments, **options)

        return remove

    with monkeypatch.context() as patch:
        for name in ("unlink", "remove_tree"):
            patch.setattr(RemotePath, name, cut(getattr(RemotePath, name)))
        with pytest.raises(PowerCutError):
            run_stages(changed, ["ingest"], overwrite=True)
    (outcome,) = run_stages(changed, ["ingest"], overwrite=True)
    assert outcome.status == "made"


def test_records_are_listed_and_not_asked_for_one_by_one(
    memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = to_place("memory://bucket/data")
    records.write_record(place, "plan", 7, records.Made(()))
    records.write_record(place, "plan", 900, records.Made(()))
    requests = []
    plain = remote.ask

    def counted(*words: Any, **options: Any) -> Any:
        requests.append(words)
        return plain(*words, **options)

    monkeypatch.setattr(remote, "ask", counted)
    assert set(records.read_done(place, "plan", range(0, 1000, 100))) == {900}
    assert len(requests) <= 4
    assert records.read_recorded(place) == {7, 900}


def test_what_is_uploaded_leaves_nothing_when_it_is_killed(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with atomic_write(to_place("memory://bucket/file")) as file:
        file.write(b"whole")
        assert list(tmp_path.iterdir()) == []
    assert memory.cat_file("/bucket/file") == b"whole"


def test_only_a_process_of_the_same_table_is_known_to_be_dead() -> None:
    import socket
    import time

    marker = {
        "host": socket.gethostname(),
        "pid": 2**30,
        "processes": locks._process_table(),
        "shared": False,
        "alive_at": time.time(),
    }
    assert locks._process_table() is not None
    assert locks._is_dead(marker)
    assert not locks._is_dead({**marker, "processes": "another container's"})
