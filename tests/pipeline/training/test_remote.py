"""Checkpoints in an object store: whole by their marker, or not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from faults import Fault, run_faulty
from fsspec.implementations.memory import MemoryFileSystem
from moto.server import ThreadedMotoServer
from small_run import Job, records, run_job

from configs.schema import ConfigError
from pipeline.training.checkpoints import remote as remote_module
from pipeline.training.checkpoints.checkpoint import Checkpoints, read_state
from pipeline.training.checkpoints.integrity import find_damage
from pipeline.training.checkpoints.remote import COMPLETE, RemoteCheckpoints
from pipeline.training.checkpoints.uploading import Uploader
from preprocessing.storage import InputError

SHORT = ("train.engine=local", "phases.0.steps=8", "phases.1.steps=1", "train.save_every=2")
"""Saves after steps 2, 4, 6, 8 and 9."""


SPIKE = (
    "train.engine=local",
    "train.save_every=1",
    "train.keep_checkpoints=6",
    "train.guards.spike={window: 4, patience: 2, rewinds: 1}",
)
RISE = Fault("raised", 9, 11)
"""It is noticed after step 11 and the checkpoint of step 10: the run is set back to step 9."""


class Killed(BaseException):
    """Nothing after this line runs."""


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_module, "PAUSES", (0.0, 0.0))


@pytest.fixture
def url() -> Iterator[str]:
    """A store in this process's memory."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs[:] = [""]
    yield "memory://bucket/run"
    store.store.clear()


@pytest.fixture(scope="module")
def undisturbed(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    run_job(recipe, Job(output, SHORT))
    return records(output, "train")


def assert_goes_on(recipe: Path, output: Path, url: str, undisturbed: list[dict[str, Any]]) -> int:
    """Start on an empty disk; the step it started from."""
    shutil.rmtree(output, ignore_errors=True)
    newest = max(RemoteCheckpoints(url).steps(), default=0)
    run_job(recipe, Job(output, (*SHORT, f"output.upload={url}")))
    assert records(output, "train") == undisturbed[newest:]
    last = Checkpoints(output / "checkpoints").latest()
    assert last is not None
    files = read_state(last).files
    assert find_damage(last, files, files) is None
    return newest


def test_checkpoints_are_uploaded_pruned_and_come_back(
    recipe: Path, tmp_path: Path, url: str, undisturbed: list[dict[str, Any]]
) -> None:
    output = tmp_path / "run"
    policy = ("train.milestone_every=4", f"output.upload={url}")
    run_job(recipe, Job(output, (*SHORT, *policy), stop_at=8))

    store = fsspec.filesystem("memory")
    assert RemoteCheckpoints(url).steps() == [4, 6, 8]
    assert store.cat_file("/bucket/run/latest") == b"step-00000008\n"
    stored = {path.rpartition("step-00000008/")[2] for path in store.find("/bucket/run")}
    local = {
        path.relative_to(output / "checkpoints/step-00000008").as_posix()
        for path in (output / "checkpoints/step-00000008").rglob("*")
        if path.is_file()
    }
    assert {*local, COMPLETE} <= stored
    assert [e["step"] for e in records(output, "event") if e["event"] == "upload"] == [2, 4, 6, 8]
    run_id = json.loads((output / "run.json").read_text())

    assert assert_goes_on(recipe, output, url, undisturbed) == 8
    assert json.loads((output / "run.json").read_text()) == run_id


def test_kill_at_every_call_of_the_store_leaves_complete_checkpoints(
    recipe: Path,
    tmp_path: Path,
    url: str,
    undisturbed: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the store holds before and after each call that changes it.

    Saved are steps 2 to 8: from the third on an upload also prunes.
    """
    output = tmp_path / "run"
    store = fsspec.filesystem("memory")
    moments: list[tuple[dict[str, bytes], int]] = []

    def note() -> None:
        held = {path: file.getvalue() for path, file in store.store.items()}
        told = [e["step"] for e in records(output, "event") if e["event"] == "upload"]
        moments.append((held, max(told, default=0)))

    def noting(plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Any, *arguments: Any, **options: Any) -> Any:
            note()
            result = plain(self, *arguments, **options)
            note()
            return result

        return call

    for name in ("put_file", "pipe_file", "rm_file"):
        monkeypatch.setattr(MemoryFileSystem, name, noting(getattr(MemoryFileSystem, name)))
    run_job(recipe, Job(output, (*SHORT, f"output.upload={url}"), stop_at=8))
    monkeypatch.undo()
    assert len(moments) > 100

    started = set()
    for number, (held, told) in enumerate(moments):
        store.store.clear()
        for path, whole in held.items():
            store.pipe_file(path, whole)
        complete = RemoteCheckpoints(url).steps()
        assert max(complete, default=0) >= told
        fetched = Checkpoints(tmp_path / "fetched" / str(number))
        for step in complete:
            RemoteCheckpoints(url).fetch(step, fetched)
        if number % 20 == 0:
            started.add(assert_goes_on(recipe, output, url, undisturbed))
    assert {0, 2, 4, 6} <= started


def test_failed_uploads_are_told_and_made_up_for(
    recipe: Path,
    tmp_path: Path,
    url: str,
    undisturbed: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The store is away from the second save to the third; training does not mind."""
    put, failures = MemoryFileSystem.put_file, []

    def away(self: Any, source: str, *arguments: Any, **k: Any) -> None:
        if ("step-00000004" in source or "step-00000006" in source) and len(failures) < 6:
            failures.append(source)
            raise ConnectionError("no route")
        put(self, source, *arguments, **k)

    monkeypatch.setattr(MemoryFileSystem, "put_file", away)
    output = tmp_path / "run"
    run_job(recipe, Job(output, (*SHORT, "train.keep_checkpoints=3", f"output.upload={url}")))

    assert records(output, "train") == undisturbed
    events = [e for e in records(output, "event") if e["event"].startswith("upload")]
    assert [(e["step"], e["event"]) for e in events] == [
        (2, "upload"),
        (4, "upload_failed"),
        (6, "upload_failed"),
        (8, "upload"),
        (9, "upload"),
    ]
    assert "could not write: ConnectionError: no route" in events[1]["problem"]
    assert capfd.readouterr().err.count("THE CHECKPOINT IS NOT UPLOADED") == 2
    assert RemoteCheckpoints(url).steps() == [6, 8, 9]


def test_passing_failures_are_tried_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = []
    glob = MemoryFileSystem.glob

    def shaky(self: Any, *arguments: Any, **k: Any) -> Any:
        attempts.append(arguments)
        if len(attempts) < 3:
            raise TimeoutError
        return glob(self, *arguments, **k)

    monkeypatch.setattr(MemoryFileSystem, "glob", shaky)
    assert RemoteCheckpoints(url).steps() == []
    assert len(attempts) == 3
    monkeypatch.setattr(remote_module, "PAUSES", (0.0,))
    attempts.clear()
    with pytest.raises(InputError, match="could not list: TimeoutError"):
        RemoteCheckpoints(url).steps()


def test_run_that_was_set_back_takes_its_later_markers_away(
    recipe: Path, tmp_path: Path, url: str, undisturbed: list[dict[str, Any]]
) -> None:
    output = tmp_path / "run"
    settings = (*SHORT, "train.keep_checkpoints=5", f"output.upload={url}")
    run_job(recipe, Job(output, settings))
    assert RemoteCheckpoints(url).steps() == [2, 4, 6, 8, 9]
    Checkpoints(output / "checkpoints").set_back(2)
    run_job(recipe, Job(output, settings, stop_at=4))

    assert RemoteCheckpoints(url).steps() == [2, 4]
    assert assert_goes_on(recipe, output, url, undisturbed) == 4


@pytest.fixture
def before_forgetting(url: str, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """What the store held whenever it was told of a set-back."""
    held: list[list[int]] = []
    forget = Uploader.forget_after

    def noting(self: Uploader, step: int) -> None:
        held.append(RemoteCheckpoints(url).steps())
        forget(self, step)

    monkeypatch.setattr(Uploader, "forget_after", noting)
    return held


def test_markers_of_a_spike_go_before_the_next_save(
    recipe: Path, tmp_path: Path, url: str, before_forgetting: list[list[int]]
) -> None:
    """Killed right after the set-back: a host without a disk begins before the spike."""
    run_faulty(recipe, Job(tmp_path / "run", (*SPIKE, f"output.upload={url}"), stop_at=11), RISE)

    assert before_forgetting == [[5, 6, 7, 8, 9, 10]]
    assert RemoteCheckpoints(url).steps() == [5, 6, 7, 8, 9]
    assert fsspec.filesystem("memory").cat_file("/bucket/run/latest") == b"step-00000009\n"


def test_store_that_keeps_a_spikes_markers_is_told_of_and_made_up_for(
    recipe: Path,
    tmp_path: Path,
    url: str,
    before_forgetting: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It is away at the set-back, and the process is killed after it: the next save knows."""
    remove, failures = MemoryFileSystem.rm_file, []

    def away(self: Any, path: str) -> None:
        if path.endswith(f"step-00000010/{COMPLETE}") and len(failures) < 3:
            failures.append(path)
            raise ConnectionError("no route")
        remove(self, path)

    monkeypatch.setattr(MemoryFileSystem, "rm_file", away)
    output, settings = tmp_path / "run", (*SPIKE, f"output.upload={url}")
    assert run_faulty(recipe, Job(output, settings, stop_at=11), RISE) is None

    assert len(before_forgetting) == 1
    assert RemoteCheckpoints(url).steps() == [5, 6, 7, 8, 9, 10]
    assert capfd.readouterr().err.count("THE OBJECT STORE KEEPS LATER CHECKPOINTS") == 1
    (told,) = [e for e in records(output, "event") if e["event"] == "upload_failed"]
    assert told["step"] == 9
    assert "could not remove: ConnectionError: no route" in told["problem"]

    assert run_faulty(recipe, Job(output, settings, stop_at=13), RISE) is None
    assert RemoteCheckpoints(url).steps() == [6, 7, 8, 9, 12, 13]


def test_damage_in_the_store_is_refused(recipe: Path, tmp_path: Path, url: str) -> None:
    job = Job(tmp_path / "run", (*SHORT, f"output.upload={url}"))
    run_job(recipe, Job(job.output, job.overrides, stop_at=4))
    store = fsspec.filesystem("memory")
    shutil.rmtree(job.output)
    state = "/bucket/run/step-00000004/local/state.pt"
    whole = store.cat_file(state)
    store.pipe_file(state, whole[:-1] + bytes([whole[-1] ^ 1]))

    with pytest.raises(InputError, match=r"local/state.pt: damaged: wrong checksum.*remove that"):
        run_job(recipe, job)
    assert Checkpoints(job.output / "checkpoints").latest() is None

    marker = f"/bucket/run/step-00000004/{COMPLETE}"
    store.pipe_file(marker, store.cat_file(marker).replace(b"local/", b"../../"))
    with pytest.raises(InputError, match="damaged: it is not the record that was saved"):
        run_job(recipe, job)


def test_store_that_nothing_installed_reaches_is_named(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"output\.upload: nosuch://bucket"):
        run_job(recipe, Job(tmp_path, (*SHORT, "output.upload=nosuch://bucket/run")))


def test_s3(
    recipe: Path,
    tmp_path: Path,
    undisturbed: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The protocol itself, by a server on this machine; one upload is cut off between two files."""
    import s3fs

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    url, store = "s3://lexmill-checkpoints/run", s3fs.S3FileSystem()
    store.mkdir("lexmill-checkpoints")
    put = store.put_file

    def cut_off(source: str, *arguments: Any, **options: Any) -> None:
        if "step-00000006/tokenizer" in source:
            raise Killed
        put(source, *arguments, **options)

    output = tmp_path / "run"
    try:
        with monkeypatch.context() as patch:
            patch.setattr(store, "put_file", cut_off)
            with pytest.raises(Killed):
                run_job(recipe, Job(output, (*SHORT, f"output.upload={url}")))
        names = store.ls("lexmill-checkpoints/run", detail=False, refresh=True)
        assert "lexmill-checkpoints/run/step-00000006" in names
        assert RemoteCheckpoints(url).steps() == [2, 4]
        assert assert_goes_on(recipe, output, url, undisturbed) == 4
        assert RemoteCheckpoints(url).steps() == [8, 9]
        names = store.ls("lexmill-checkpoints/run", detail=False, refresh=True)
        assert [name.rpartition("/")[2] for name in names] == [
            "latest",
            "step-00000008",
            "step-00000009",
        ]
    finally:
        server.stop()
        s3fs.S3FileSystem.clear_instance_cache()
