"""A fault at every write, fsync and rename of every stage: started again, nothing is lost."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from corpora import (
    LENIENT,
    make_text,
    prepare_config,
    run_alone,
    run_stages,
    stage_makers,
    tree,
    write_documents,
)

from preprocessing import space, storage
from preprocessing import stage as stage_module
from preprocessing.settings import Preparation
from preprocessing.stage import run_stage
from preprocessing.storage import InputError

STAGES = (
    "ingest",
    "clean",
    "signatures",
    "matches",
    "deduplicate",
    "tokenizer",
    "tokenize",
    "examples",
)
OPERATIONS = ("write_all", "synchronize", "rename")


class PowerCutError(BaseException):
    """The machine is gone: nothing may be cleaned up after it."""


class Faults:
    """Counts the operations on the disk, and lets the n-th of them fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.tasks = 0
        self.fail_at: int | None = None
        self.error: BaseException = PowerCutError()
        self.happened = ""
        for name in OPERATIONS:
            monkeypatch.setattr(storage, name, self._counted(name, getattr(storage, name)))
        run = stage_module._run_and_record

        def run_and_count(*arguments: Any) -> Any:
            self.tasks += 1
            return run(*arguments)

        monkeypatch.setattr(stage_module, "_run_and_record", run_and_count)
        unlink = Path.unlink

        def unlink_unless_dead(path: Path, missing_ok: bool = False) -> None:
            if self.happened and isinstance(self.error, PowerCutError):
                return
            unlink(path, missing_ok=missing_ok)

        monkeypatch.setattr(Path, "unlink", unlink_unless_dead)

    def _counted(self, name: str, operation: Any) -> Any:
        def counted(*arguments: Any) -> Any:
            number, self.count = self.count, self.count + 1
            if number == self.fail_at:
                self.happened = f"{name} number {number}"
                if name == "write_all":  # half of it is written
                    file, view = arguments
                    operation(file, view[: len(view) // 2])
                raise self.error
            # A test ends before a machine does: to force the disk each time shows nothing more.
            return None if name == "synchronize" else operation(*arguments)

        return counted

    def arm(self, fail_at: int | None, error: BaseException | None = None) -> None:
        self.count, self.tasks, self.happened = 0, 0, ""
        self.fail_at, self.error = fail_at, error or PowerCutError()


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(monkeypatch)


@pytest.fixture
def corpus(tmp_path: Path) -> Preparation:
    documents = make_text(14)
    write_documents(tmp_path / "raw" / "a.txt", [*documents, documents[0]])
    (tmp_path / "raw" / "b.txt").write_bytes(b"Bad \xff byte.\n\nGood line here.\n")
    examples = {
        "blocks": {"length": 16, "layout": {"kind": "blocks"}, "corruption": {"kind": "masked"}}
    }
    return prepare_config(
        tmp_path,
        corpus={
            "shard_bytes": 1200,
            "allowed_reject_share": 0.5,
            "clean": LENIENT,
            "deduplicate": {"near": {"num_hashes": 32}},
        },
        tokenizer={"kind": "wordpiece", "vocab_size": 120},
        examples=examples,
    )


def directories(preparation: Preparation) -> dict[str, Path]:
    """What each stage writes to."""
    return {name: make().directory for name, make in stage_makers(preparation).items()}


def interrupted(
    preparation: Preparation, faults: Faults, name: str, error: type[BaseException], *args: Any
) -> Iterator[tuple[int, BaseException]]:
    """Fail at every operation of a stage in turn; each yield is the moment after the fault."""
    directory = stage_makers(preparation)[name]().directory
    number = 0
    while True:
        shutil.rmtree(directory, ignore_errors=True)
        faults.arm(number, error(*args))
        try:
            run_alone(preparation, name)
        except (InputError, error) as raised:
            assert faults.happened
            yield number, raised
        else:
            assert not faults.happened, f"{faults.happened} went unnoticed"
            return
        number += 1


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize(
    "error", [(OSError, errno.EIO, "Input/output error"), (PowerCutError,)], ids=["error", "cut"]
)
def test_stage_resumes_after_fault_at_every_disk_operation(
    corpus: Preparation, faults: Faults, name: str, error: tuple[Any, ...]
) -> None:
    run_stages(corpus)
    assert tuple(directories(corpus)) == STAGES
    directory = directories(corpus)[name]
    undisturbed = tree(directory)
    shutil.rmtree(directory)
    faults.arm(None)
    run_alone(corpus, name)
    assert tree(directory) == undisturbed
    operations, all_tasks = faults.count, faults.tasks
    assert name in ("matches", "tokenizer") or all_tasks >= 2
    seen = 0
    for number, _ in interrupted(corpus, faults, name, *error):
        where, before = faults.happened, faults.tasks
        faults.arm(None)
        run_alone(corpus, name)
        assert tree(directory) == undisturbed, where
        assert before + faults.tasks <= all_tasks + 1, f"more than one shard again after {where}"
        seen = number + 1
    assert seen == operations > 10


@pytest.mark.parametrize("name", STAGES)
def test_full_disk_says_what_to_do_and_leaves_nothing_half_written(
    corpus: Preparation, faults: Faults, name: str
) -> None:
    run_stages(corpus)
    assert tuple(directories(corpus)) == STAGES
    directory = directories(corpus)[name]
    undisturbed = tree(directory)
    for number, raised in interrupted(
        corpus, faults, name, OSError, errno.ENOSPC, "No space left on device"
    ):
        assert isinstance(raised, InputError), number
        assert "the disk is full" in str(raised)
        assert "free some space and start again" in str(raised)
        for path, data in tree(directory).items():
            assert ".records/" in path or data == undisturbed[path], (number, path)


def test_quota_counts_as_full_disk(corpus: Preparation, faults: Faults) -> None:
    faults.arm(0, OSError(errno.EDQUOT, "Disk quota exceeded"))
    with pytest.raises(InputError, match="the disk is full"):
        run_stages(corpus, ["ingest"])


def test_faults_of_overwriting_never_mix_old_and_new(corpus: Preparation, faults: Faults) -> None:
    run_stages(corpus, ["ingest"])
    old = tree(corpus.documents_directory)
    raw = Path(corpus.corpus.inputs[0]).parent / "a.txt"
    raw.write_text(raw.read_text() + "\nOne more line of text.\n")
    run_stages(corpus, ["ingest"], overwrite=True)
    new = tree(corpus.documents_directory)
    assert old != new
    faults.arm(None)
    operations = 0
    while True:
        shutil.rmtree(corpus.documents_directory)
        for path, data in old.items():
            (corpus.documents_directory / path).parent.mkdir(parents=True, exist_ok=True)
            (corpus.documents_directory / path).write_bytes(data)
        faults.arm(operations)
        try:
            run_stages(corpus, ["ingest"], overwrite=True)
        except PowerCutError:
            faults.arm(None)
            run_stages(corpus, ["ingest"], overwrite=True)
            assert tree(corpus.documents_directory) == new
        else:
            break
        operations += 1
    assert operations > 10


def test_file_that_may_grow_no_further(corpus: Preparation, tmp_path: Path) -> None:
    """What a full disk is to somebody who may not mount one: a limit on the size of files."""
    write_documents(tmp_path / "raw" / "c.txt", make_text(300))
    command = [sys.executable, "-m", "preprocessing", "ingest", str(tmp_path / "recipe.yaml")]
    options = ["corpus.shard_bytes=20000"]

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, check=False, preexec_fn=limit
    )
    assert done.returncode == 1, done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.writing"))
    assert not (corpus.documents_directory / "manifest.json").exists()
    subprocess.run([*command, *options], check=True, capture_output=True)
    after = tree(corpus.documents_directory)
    shutil.rmtree(corpus.documents_directory)
    subprocess.run([*command, *options], check=True, capture_output=True)
    assert tree(corpus.documents_directory) == after


def test_disk_that_will_not_do_is_refused_before_any_work(
    corpus: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(corpus.corpus.directory.parent)
    monkeypatch.setattr(space.shutil, "disk_usage", lambda path: usage._replace(free=1500))
    with pytest.raises(InputError) as caught:
        run_stages(corpus, ["ingest"])
    assert "'ingest' is expected to write" in str(caught.value)
    assert "1.5 kB are free" in str(caught.value)
    assert "corpus.check_disk=false" in str(caught.value)
    assert not list(corpus.documents_directory.rglob("*.arrow"))
    outcome = run_stage(stage_makers(corpus)["ingest"](), check_disk=False, quiet=True)
    assert outcome.status == "made"


@pytest.mark.skipif(shutil.which("mount") is None, reason="needs the mount command")
def test_really_full_disk(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs root and the right to mount a tmpfs of 48 KiB")
    try:
        write_documents(tmp_path / "raw" / "a.txt", make_text(400))
        preparation = prepare_config(
            tmp_path, corpus={"directory": str(small / "data"), "check_disk": False}
        )
        with pytest.raises(InputError, match="the disk is full"):
            run_stages(preparation)
        assert not list(small.rglob("*.writing"))
        assert not (preparation.documents_directory / "manifest.json").exists()
        kept = list(preparation.documents_directory.rglob("part-*.arrow"))
        assert kept, "the shards that fitted are kept"
        subprocess.run(["mount", "-o", "remount,size=8m", str(small)], check=True)
        assert all(outcome.status == "made" for outcome in run_stages(preparation))
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)  # files are still mapped
