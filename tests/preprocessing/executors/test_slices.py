"""Slices of a stage: at the same time, in one directory, merged at the end."""

import json
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from corpora import (
    make_text,
    prepare_config,
    run_stages,
    stage_makers,
    tree,
    write_documents,
)
from every_form import Made, differing

from preprocessing import locks
from preprocessing import stage as stage_module
from preprocessing.console import main
from preprocessing.executors.slices import TaskSlice, describe_missing
from preprocessing.locks import BusyError, exclusive, shared
from preprocessing.settings import Preparation
from preprocessing.stage import Outcome, SliceOutcome, run_slice, run_stage
from preprocessing.storage import InputError


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Preparation:
    monkeypatch.setattr(locks, "PATIENCE", 0.3)
    write_documents(tmp_path / "raw" / "a.txt", make_text(150))
    return prepare_config(tmp_path, corpus={"shard_bytes": 2500})


def slice_of(corpus: Preparation, name: str, text: str, overwrite: bool = False) -> SliceOutcome:
    outcome = run_slice(
        stage_makers(corpus)[name](), TaskSlice.parse(text), overwrite=overwrite, quiet=True
    )
    assert isinstance(outcome, SliceOutcome)
    return outcome


def merge(corpus: Preparation, name: str) -> Outcome:
    return run_stage(stage_makers(corpus)[name](), merge=True, quiet=True)


@pytest.mark.parametrize("text", ["", "3", "3/", "3/3", "-1/2", "1/0", "a/b", "1/2/3", " 1/2"])
def test_bad_slices_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="0/16 to 15/16"):
        TaskSlice.parse(text)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_slices_share_out_every_task_once(count: int) -> None:
    dealt = [
        task
        for i in range(count)
        for task in range(20)
        if TaskSlice.parse(f"{i}/{count}").holds(task)
    ]
    assert sorted(dealt) == list(range(20))


def test_missing_slices_are_named_and_shortened() -> None:
    assert describe_missing([1, 4, 7], 3) == "slices 1/3 (tasks 1, 4, 7)"
    assert describe_missing([2], None) == "tasks 2"
    assert describe_missing(range(30), None).endswith("19 and 10 more")


@pytest.mark.parametrize("count", [3, pytest.param(5, marks=pytest.mark.slow)])
def test_whole_road_in_slices_gives_the_same_bytes(
    every_form: Made, tmp_path: Path, count: int
) -> None:
    corpus = every_form.elsewhere(tmp_path / "data")
    for name in stage_makers(corpus):
        for index in random.Random(f"{name} {count}").sample(range(count), count):
            outcome = slice_of(corpus, name, f"{index}/{count}")
        assert outcome.missing == ()
        assert merge(corpus, name).status == "made"
    assert differing(tree(corpus.corpus.directory), every_form.files) == []


def test_merge_names_what_is_missing(corpus: Preparation) -> None:
    with pytest.raises(InputError, match=r"no slice of 'ingest' has been run.*--slice"):
        merge(corpus, "ingest")
    first = slice_of(corpus, "ingest", "0/3")
    assert all(index % 3 for index in first.missing)
    assert len(first.missing) > first.tasks_done >= 2
    slice_of(corpus, "ingest", "2/3")
    with pytest.raises(InputError, match=r"missing are slices 1/3 \(tasks 1, 4.*run them again"):
        merge(corpus, "ingest")
    # A plain run does what is missing, and nothing else.
    (outcome,) = run_stages(corpus, ["ingest"])
    assert outcome.tasks_done == len([i for i in first.missing if i % 3 == 1])
    late = run_slice(stage_makers(corpus)["ingest"](), TaskSlice(1, 3), quiet=True)
    assert isinstance(late, Outcome)
    assert late.status == "up to date"


def test_slices_share_the_directory_with_their_own_plan_only(
    corpus: Preparation, tmp_path: Path
) -> None:
    slice_of(corpus, "ingest", "0/2")
    other = prepare_config(tmp_path, corpus={"shard_bytes": 3000})
    before = tree(corpus.documents_directory)
    with shared(corpus.documents_directory):  # a slice of the first plan at work
        slice_of(corpus, "ingest", "1/2")
        for overwrite in (False, True):
            with pytest.raises(InputError, match="another configuration, or other inputs"):
                slice_of(other, "ingest", "0/2", overwrite=overwrite)
        with pytest.raises(InputError, match="another process is writing here"):
            merge(corpus, "ingest")
        with pytest.raises(InputError, match="another process is writing here"):
            run_stages(corpus, ["ingest"])
    assert before.items() <= tree(corpus.documents_directory).items()
    merge(corpus, "ingest")
    with pytest.raises(InputError, match="made differently"):
        slice_of(other, "ingest", "0/2")
    slice_of(other, "ingest", "0/2", overwrite=True)
    slice_of(other, "ingest", "1/2", overwrite=True)
    merge(other, "ingest")
    merged = tree(corpus.documents_directory)
    shutil.rmtree(corpus.documents_directory)
    run_stages(other, ["ingest"])
    assert tree(corpus.documents_directory) == merged


def test_slice_waits_for_one_that_prepares_and_not_for_ever(corpus: Preparation) -> None:
    with (
        exclusive(corpus.documents_directory),
        pytest.raises(InputError, match="another process is writing here"),
    ):
        slice_of(corpus, "ingest", "0/2")


def test_slices_started_at_once(corpus: Preparation, tmp_path: Path) -> None:
    run_stages(corpus, ["ingest"])
    expected = tree(corpus.documents_directory)
    shutil.rmtree(corpus.documents_directory)
    command = [sys.executable, "-m", "preprocessing", "ingest", str(tmp_path / "recipe.yaml")]
    running = [
        subprocess.Popen([*command, "--slice", f"{index}/4"], stderr=subprocess.PIPE)
        for index in range(4)
    ]
    for process in running:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err.decode()
    subprocess.run([*command, "--merge"], check=True, stderr=subprocess.PIPE)
    assert tree(corpus.documents_directory) == expected


def test_command_with_several_stages_goes_on_stage_by_stage(
    corpus: Preparation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(tmp_path / "recipe.yaml")
    run_stages(corpus, ["ingest", "deduplicate"])
    expected = tree(corpus.corpus.directory)
    for directory in corpus.corpus.directory.iterdir():
        if directory.name != "documents":
            shutil.rmtree(directory)
    stages = ["signatures", "matches", "deduplicate"]
    for number, name in enumerate(stages):
        for index in range(2):
            capsys.readouterr()
            assert main(["deduplicate", recipe, "--slice", f"{index}/2", "--json"]) == 0
            out, err = capsys.readouterr()
            told = json.loads(out)["outputs"]
            assert [own["status"] for own in told] == ["up to date"] * number + ["slice done"]
            assert f"{name}: slice {index}/2 done" in err
        assert "finish it with lexmill deduplicate --merge" in err
        assert main(["deduplicate", recipe, "--merge"]) == 0
        left = len(stages) - number - 1
        assert (f"{left} more stage" in capsys.readouterr().err) == (left > 0)
    assert tree(corpus.corpus.directory) == expected
    with pytest.raises(SystemExit):
        main(["ingest", recipe, "--slice", "0/2", "--merge"])


def test_slice_that_meets_a_run_at_its_end_is_up_to_date(
    corpus: Preparation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 20.0)
    run_stages(corpus, ["ingest"])
    finished = corpus.documents_directory.rename(tmp_path / "finished")
    outcomes: list[Any] = []

    def join() -> None:
        outcomes.append(run_slice(stage_makers(corpus)["ingest"](), TaskSlice(0, 2), quiet=True))

    thread = threading.Thread(target=join)
    with exclusive(corpus.documents_directory):
        thread.start()
        time.sleep(0.3)
        shutil.copytree(finished / "train", corpus.documents_directory / "train")
        shutil.copy(finished / "manifest.json", corpus.documents_directory)
    thread.join()
    assert [outcome.status for outcome in outcomes] == ["up to date"]


def test_slices_that_refused_each_other_try_again(
    corpus: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = [1, 2]

    def unlucky(directory: Path) -> Any:
        if refusals:
            refusals.pop()
            raise BusyError("another one came at the same moment")
        return exclusive(directory)

    monkeypatch.setattr(stage_module, "exclusive", unlucky)
    monkeypatch.setattr(locks, "PATIENCE", 20.0)
    slice_of(corpus, "ingest", "0/2")
    assert refusals == []


def test_merge_replaces_nothing(
    corpus: Preparation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_stages(corpus, ["ingest"])
    before = tree(corpus.documents_directory)
    words = ["ingest", str(tmp_path / "recipe.yaml"), "--merge", "corpus.shard_bytes=3000"]
    assert main([*words, "--overwrite"]) == 2
    assert "give --overwrite to the slices" in capsys.readouterr().err
    other = prepare_config(tmp_path, corpus={"shard_bytes": 3000})
    with pytest.raises(InputError, match="made differently"):
        run_stage(stage_makers(other)["ingest"](), merge=True, overwrite=True, quiet=True)
    assert tree(corpus.documents_directory) == before
