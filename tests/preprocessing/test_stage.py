import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from corpora import (
    ROAD,
    make_text,
    prepare_config,
    run_stages,
    stage_makers,
    tree,
    write_documents,
)

from preprocessing import records
from preprocessing import stage as stage_module
from preprocessing.executors.local import LocalExecutor
from preprocessing.locks import exclusive
from preprocessing.settings import Preparation
from preprocessing.stage import run_stage
from preprocessing.storage import InputError


@pytest.fixture
def corpus(tmp_path: Path) -> Preparation:
    write_documents(tmp_path / "raw" / "a.txt", make_text(80))
    return prepare_config(tmp_path)


def test_second_run_does_nothing(corpus: Preparation, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_stages(corpus)
    assert {outcome.status for outcome in first} == {"made"}
    before = tree(corpus.corpus.directory)
    stamps = {path: path.stat().st_mtime_ns for path in corpus.corpus.directory.rglob("*.arrow")}
    monkeypatch.setattr(stage_module, "_run_and_record", None)
    second = run_stages(corpus)
    assert {outcome.status for outcome in second} == {"up to date"}
    assert sum(outcome.tasks_done for outcome in second) == 0
    assert tree(corpus.corpus.directory) == before
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_records_left_by_a_cut_at_the_very_end_go(
    corpus: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stages(corpus, ["ingest"])
    undisturbed = tree(corpus.documents_directory)
    shutil.rmtree(corpus.documents_directory)

    def cut(path: Path) -> None:
        (path / "plan.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(records, "remove_tree", cut)
        with pytest.raises(KeyboardInterrupt):
            run_stages(corpus, ["ingest"])
    assert (corpus.documents_directory / ".records").exists()
    (outcome,) = run_stages(corpus, ["ingest"])
    assert outcome.status == "up to date"
    assert tree(corpus.documents_directory) == undisturbed


@pytest.mark.parametrize("kept", [0, 1])
def test_overwriting_can_be_cut_while_it_clears(
    corpus: Preparation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    run_stages(corpus, ["ingest"])
    changed = prepare_config(tmp_path, corpus={"shard_bytes": 2048})
    unlink = Path.unlink
    left = [kept]

    def cut(path: Path, missing_ok: bool = False) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", cut)
        with pytest.raises(KeyboardInterrupt):
            run_stages(changed, ["ingest"], overwrite=True)
    run_stages(changed, ["ingest"], overwrite=True)
    cleared = tree(changed.documents_directory)
    shutil.rmtree(changed.documents_directory)
    run_stages(changed, ["ingest"])
    assert tree(changed.documents_directory) == cleared


def test_stale_output_is_refused_with_what_changed(corpus: Preparation, tmp_path: Path) -> None:
    run_stages(corpus)
    before = tree(corpus.corpus.directory)

    def refusal(stage: str, **sections: object) -> str:
        with pytest.raises(InputError) as caught:
            run_stages(prepare_config(tmp_path, **sections), [stage])
        assert tree(corpus.corpus.directory) == before
        assert "--overwrite" in str(caught.value)
        return str(caught.value)

    assert "shard_bytes: 4096 then, 8192 now" in refusal("ingest", corpus={"shard_bytes": 8192})
    assert "seed: 1 then, 2 now" in refusal("deduplicate", seed=2)
    shares = {"validation": {"heldout": {"share": 0.2}}}
    assert "heldout.heldout: 0.1 then, 0.2 now" in refusal("deduplicate", corpus=shares)
    named = {"kind": "wordpiece", "vocab_size": 300, "name": "wordpiece-200-uncased"}
    assert "tokenizer.vocab_size: 200 then, 300 now" in refusal("tokenizer", tokenizer=named)
    write_documents(tmp_path / "raw" / "b.txt", make_text(3, seed=5))
    assert "the input train/b.txt is new" in refusal("ingest")
    (tmp_path / "raw" / "b.txt").unlink()
    raw = tmp_path / "raw" / "a.txt"
    text = raw.read_text()
    raw.write_text(text.swapcase())
    assert "the input train/a.txt has changed" in refusal("ingest")
    raw.rename(tmp_path / "raw" / "c.txt")
    message = refusal("ingest")
    assert "train/a.txt is gone" in message
    assert "train/c.txt is new" in message


def test_overwrite_makes_it_anew_as_if_nothing_had_been_there(
    corpus: Preparation, tmp_path: Path
) -> None:
    run_stages(corpus)
    changed = prepare_config(tmp_path, corpus={"shard_bytes": 2048}, seed=3)
    (outcome,) = run_stages(changed, ["ingest"], overwrite=True)
    assert outcome.status == "made"
    over = tree(changed.documents_directory)
    shutil.rmtree(changed.documents_directory)
    run_stages(changed, ["ingest"])
    assert tree(changed.documents_directory) == over


def test_file_moved_over_another_with_its_dates_kept_is_noticed(
    corpus: Preparation, tmp_path: Path
) -> None:
    raw = tmp_path / "raw" / "a.txt"
    old = tmp_path / "old.txt"
    old.write_text(raw.read_text().swapcase())
    os.utime(old, (1, 1))
    run_stages(corpus, ["ingest"])
    time.sleep(0.02)
    old.rename(raw)
    with pytest.raises(InputError, match=r"train/a\.txt has changed"):
        run_stages(corpus, ["ingest"])


def test_order_of_validation_sets_in_the_file_does_not_matter(tmp_path: Path) -> None:
    write_documents(tmp_path / "raw" / "a.txt", make_text(80))
    shares = {"b": {"share": 0.2}, "a": {"share": 0.1}}
    run_stages(prepare_config(tmp_path, corpus={"validation": shares}), ["ingest", "deduplicate"])
    before = tree(tmp_path / "data")
    other = prepare_config(
        tmp_path,
        corpus={
            "validation": dict(reversed(shares.items())),
            "directory": str(tmp_path / "other"),
        },
    )
    run_stages(other, ["ingest", "deduplicate"])
    assert tree(tmp_path / "other") == before


@pytest.mark.parametrize("name", ROAD)
def test_foreign_files_are_refused_and_left_alone(corpus: Preparation, name: str) -> None:
    run_stages(corpus)
    directory = run_stages(corpus, [name])[-1].directory
    shutil.rmtree(directory)
    (directory / "train").mkdir(parents=True)
    (directory / "train" / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"files that are not ours \(train\).*another place"):
            run_stages(corpus, [name], overwrite=overwrite)
        assert tree(directory)["train/thesis.txt"] == b"years of work"
    (directory / "manifest.json").write_text('{"version": 2, "name": "a browser extension"}')
    for overwrite in (False, True):
        with pytest.raises(InputError, match="not a manifest of ours"):
            run_stages(corpus, [name], overwrite=overwrite)
        assert tree(directory)["train/thesis.txt"] == b"years of work"


def test_second_writer_is_refused(corpus: Preparation) -> None:
    refused = pytest.raises(InputError, match=r"documents: another process is writing here")
    with exclusive(corpus.documents_directory), refused:
        run_stages(corpus, ["ingest"])
    (outcome,) = run_stages(corpus, ["ingest"])
    assert outcome.status == "made"


def test_lock_of_a_dead_process_does_not_count(corpus: Preparation) -> None:
    code = (
        "import sys, os, pathlib; from preprocessing.locks import exclusive\n"
        "with exclusive(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(corpus.documents_directory)], check=False)
    (outcome,) = run_stages(corpus, ["ingest"])
    assert outcome.status == "made"


def test_tokens_of_another_tokenizer_are_refused(corpus: Preparation, tmp_path: Path) -> None:
    run_stages(corpus)
    name = corpus.tokenizer.directory_name
    other = prepare_config(
        tmp_path, tokenizer={"kind": "wordpiece", "vocab_size": 150, "name": name}
    )
    run_stages(other, ["tokenizer"], overwrite=True)
    with pytest.raises(InputError, match=r"made with another tokenizer .* run tokenize again"):
        run_stages(other, ["examples"])
    with pytest.raises(InputError, match="the input tokenizer has changed"):
        run_stages(other, ["tokenize"])


@pytest.mark.parametrize("name", ROAD[1:])
def test_stage_before_its_time_says_what_is_missing(corpus: Preparation, name: str) -> None:
    with pytest.raises(InputError, match=r"no finished data here|is missing; run the tokenizer"):
        run_stages(corpus, [name])


class Interrupting(LocalExecutor):
    """Something happens after the first task."""

    happens: Callable[[], object]

    def run(
        self, function: Callable[[Any], Any], tasks: Sequence[Any]
    ) -> Iterator[tuple[int, Any]]:
        for index, made in super().run(function, tasks):
            yield index, made
            if index == 0:
                type(self).happens()


@pytest.mark.parametrize("name", ["ingest", "signatures"])
def test_inputs_that_change_meanwhile_are_noticed(
    corpus: Preparation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    raw = tmp_path / "raw" / "a.txt"

    def change() -> None:
        text = raw.read_text().swapcase()
        raw.write_text(text)
        os.utime(raw, ns=(1, time.time_ns()))
        if name != "ingest":
            run_stages(corpus, ["ingest"], overwrite=True)

    if name != "ingest":
        run_stages(corpus, ["ingest"])
    monkeypatch.setattr(Interrupting, "happens", staticmethod(change), raising=False)
    stage = stage_makers(corpus)[name]()
    with pytest.raises(InputError, match=f"inputs of '{name}' have changed .*run it again"):
        run_stage(stage, executor=Interrupting(), quiet=True)
    assert set(tree(stage.directory)) == {".lock", ".records/plan.json"}
    run_stages(corpus, ["ingest", "deduplicate"])
    made = tree(corpus.corpus.directory)
    shutil.rmtree(corpus.corpus.directory)
    run_stages(corpus, ["ingest", "deduplicate"])
    assert tree(corpus.corpus.directory) == made


def test_finished_output_needs_no_lock(corpus: Preparation) -> None:
    (made,) = run_stages(corpus, ["ingest"])
    with exclusive(corpus.documents_directory):
        (outcome,) = run_stages(corpus, ["ingest"])
    assert outcome.status == "up to date"
    (corpus.documents_directory / ".lock").unlink()
    run_stages(corpus, ["ingest"])
    assert not (corpus.documents_directory / ".lock").exists()
    assert outcome.manifest == made.manifest


def test_records_of_another_version_or_plan_do_not_count(
    corpus: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Interrupting, "happens", staticmethod(cut), raising=False)
    ingest = stage_makers(corpus)["ingest"]
    with pytest.raises(KeyboardInterrupt):
        run_stage(ingest(), executor=Interrupting(), quiet=True)
    directory = corpus.documents_directory
    plan = records.read_plan(directory)
    assert plan is not None
    assert set(records.read_done(directory, plan, range(99))) == {0}
    assert records.read_done(directory, "another plan", range(99)) == {}
    with monkeypatch.context() as patch:
        patch.setattr(metadata, "version", lambda name: "99.0")
        assert run_stage(ingest(), merge=False, quiet=True).tasks_done == len(ingest().plan())
