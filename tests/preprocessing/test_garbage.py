import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from corpora import EXAMPLES, make_text, prepare_config, run_stages, tree, write_documents

from configs.schema import load
from preprocessing.console import main
from preprocessing.garbage import UNREFERENCED, find_garbage, remove_garbage
from preprocessing.locks import BusyError, exclusive
from preprocessing.settings import Preparation, decode_preparation
from preprocessing.takedown.request import JOURNAL


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("garbage")
    write_documents(folder / "raw" / "a.txt", make_text(60))
    run_stages(prepare_config(folder))
    examples = {"short": {**EXAMPLES["pairs"], "length": 16}}
    other = prepare_config(folder, tokenizer={"kind": "wordpiece", "vocab_size": 150},
                           examples=examples)  # fmt: skip
    run_stages(other, ("tokenizer", "tokenize", "examples"))
    prepare_config(folder)
    return folder


@pytest.fixture
def corpus(model: Path, tmp_path: Path) -> Preparation:
    """A corpus of two recipes; the one that is given refers to half of it."""
    folder = tmp_path / "corpus"
    shutil.copytree(model, folder)
    return prepare_config(folder)


def unreferenced(corpus: Preparation) -> set[str]:
    root = corpus.corpus.directory
    return {
        str(one.directory.relative_to(root))
        for one in find_garbage([corpus])
        if one.what == UNREFERENCED
    }


def test_what_another_recipe_made_is_found_and_removed_alone(corpus: Preparation) -> None:
    root = corpus.corpus.directory
    before = tree(root)
    found = find_garbage([corpus])
    assert {one.what for one in found} == {UNREFERENCED}
    (examples,) = (root / "examples" / "wordpiece-150-uncased").iterdir()
    assert unreferenced(corpus) == {
        "tokenizers/wordpiece-150-uncased",
        "tokens/wordpiece-150-uncased",
        str(examples.relative_to(root)),
    }
    assert tree(root) == before, "looking changes nothing"
    listed = {str((one.directory / name).relative_to(root)) for one in found for name in one.files}
    assert sum(one.bytes for one in found) == sum(len(before[name]) for name in listed)

    removed = remove_garbage(found)
    assert {one.status for one in removed} == {"removed"}
    after = tree(root)
    assert set(before) - set(after) == listed
    assert all(before[name] == data for name, data in after.items())
    assert not examples.exists()
    assert find_garbage([corpus]) == []
    assert all(outcome.status == "up to date" for outcome in run_stages(corpus))


def test_nothing_is_garbage_that_any_given_recipe_refers_to(corpus: Preparation) -> None:
    folder = corpus.corpus.directory.parent
    examples = {"short": {**EXAMPLES["pairs"], "length": 16}}
    other = prepare_config(folder, tokenizer={"kind": "wordpiece", "vocab_size": 150},
                           examples=examples)  # fmt: skip
    assert find_garbage([corpus, other]) == []
    assert unreferenced(other) != set()


def test_foreign_files_survive(corpus: Preparation, tmp_path: Path) -> None:
    root = corpus.corpus.directory
    stale = root / "tokens" / "wordpiece-150-uncased"
    (examples,) = (root / "examples" / "wordpiece-150-uncased").iterdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "part-00000.arrow").write_text("not here")
    foreign = {
        root / "notes.txt": "mine",
        root / "manifest.json": '{"name": "another tool\'s"}',
        root / "mine" / "part-00000.arrow": "in a directory without a manifest",
        root / "mine" / ".x.arrow.01234567.writing": "nor a temporary of ours",
        root / "theirs" / "manifest.json": json.dumps({"version": 3, "shards": []}),
        root / "theirs" / "train" / "part-00000.arrow": "of another tool",
        stale / "README.md": "mine",
        stale / "train" / "notes.txt": "mine",
        stale / "train" / "part-00000.arrow.bak": "mine",
        root / "documents" / "train" / "mine.arrow": "mine",
        root / "documents" / ".writing": "mine",
    }
    for path, content in foreign.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    links = [
        examples / "train" / "part-00009.arrow",
        root / "documents" / "train" / "part-00099.arrow",
        root / "tokenizers" / "linked",
    ]
    links[0].symlink_to(outside / "part-00000.arrow")
    links[1].symlink_to(outside / "part-00000.arrow")
    links[2].symlink_to(root / "tokenizers" / "wordpiece-150-uncased")
    remove_garbage(find_garbage([corpus]))
    for path, content in foreign.items():
        assert path.read_text() == content
    assert all(link.is_symlink() for link in links)
    assert (outside / "part-00000.arrow").read_text() == "not here"
    assert tree(stale).keys() == {
        "README.md", "train/notes.txt", "train/part-00000.arrow.bak",
    }  # fmt: skip
    assert all(outcome.status == "up to date" for outcome in run_stages(corpus))


def test_leftovers_inside_what_is_in_use(corpus: Preparation) -> None:
    documents = corpus.documents_directory
    before = tree(documents)
    leftovers = {
        "train/.part-00000.arrow.0123abcd.writing": "temporaries",
        ".manifest.json.ffffffff.writing": "temporaries",
        "train/part-00077.arrow": "orphan shards",
        ".records/plan.json": "old records",
        ".records/task-00000.json": "old records",
    }
    for name in leftovers:
        (documents / name).parent.mkdir(exist_ok=True)
        (documents / name).write_text("{}")
    found = {
        name: one.what
        for one in find_garbage([corpus])
        if one.directory == documents.resolve()
        for name in one.files
    }
    assert found == leftovers
    remove_garbage(find_garbage([corpus]))
    assert tree(documents) == before
    assert not (documents / ".records").exists()


def test_work_in_progress_is_not_garbage(corpus: Preparation) -> None:
    tokens = corpus.tokens_directory
    (tokens / "manifest.json").unlink()
    (tokens / ".records").mkdir()
    (tokens / ".records" / "plan.json").write_text('"x"')
    (tokens / ".records" / "task-00000.json").write_text("{}")
    (tokens / "train" / ".part-00001.arrow.0123abcd.writing").write_text("half")
    (found,) = (one for one in find_garbage([corpus]) if one.directory == tokens.resolve())
    assert found.what == "temporaries"
    assert list(found.files) == ["train/.part-00001.arrow.0123abcd.writing"]


def test_unfinished_output_of_another_recipe_goes_too(corpus: Preparation) -> None:
    stale = corpus.corpus.directory / "tokens" / "wordpiece-150-uncased"
    (stale / "manifest.json").unlink()
    (stale / ".records").mkdir()
    (stale / ".records" / "plan.json").write_text('"x"')
    remove_garbage(find_garbage([corpus]))
    assert not stale.exists()


def test_a_directory_that_is_being_written_is_left_and_told_of(
    corpus: Preparation, capsys: pytest.CaptureFixture[str]
) -> None:
    root = corpus.corpus.directory
    stale = root / "tokens" / "wordpiece-150-uncased"
    before = tree(stale)
    words = ["status", str(root.parent / "recipe.yaml"), "--gc", "--delete"]
    with open(stale / ".lock", "a+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert main([*words, "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert {one["status"] for one in result["garbage"]} == {"locked", "removed"}
        assert tree(stale) == before
        assert main(words) == 0
        assert "another process is writing there" in capsys.readouterr().out
    assert main(words) == 0
    assert not stale.exists()


def test_an_unfinished_takedown_is_left_alone(corpus: Preparation) -> None:
    root = corpus.corpus.directory
    staged = root / "documents" / ".takedown"
    shutil.copytree(root / "documents", staged, dirs_exist_ok=True)
    found = find_garbage([corpus])
    assert all(".takedown" not in str(one.directory) for one in found)
    (root / JOURNAL).write_text("{}")
    before = tree(root)
    assert {one.status for one in remove_garbage(find_garbage([corpus]))} == {"locked"}
    assert tree(root) == before
    (root / JOURNAL).unlink()
    remove_garbage(find_garbage([corpus]))
    assert tree(staged) == {
        name.removeprefix("documents/.takedown/"): data
        for name, data in before.items()
        if name.startswith("documents/.takedown/")
    }


def test_the_command_lists_then_deletes(
    corpus: Preparation, capsys: pytest.CaptureFixture[str]
) -> None:
    root = corpus.corpus.directory
    recipe = str(root.parent / "recipe.yaml")
    before = tree(root)

    def run(*words: str) -> Any:
        capsys.readouterr()
        assert main(["status", recipe, *words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    listed = run("--gc")
    assert tree(root) == before
    assert len(listed["garbage"]) == 3
    assert listed["garbage_bytes"] == sum(one["bytes"] for one in listed["garbage"])
    assert "garbage" not in run()
    deleted = run("--gc", "--delete")
    assert [one["files"] for one in deleted["garbage"]] == [
        one["files"] for one in listed["garbage"]
    ]
    assert {one["status"] for one in deleted["garbage"]} == {"removed"}
    assert run("--gc")["garbage"] == []
    assert main(["status", recipe, "--gc"]) == 0
    assert "nothing but what" in capsys.readouterr().out


def test_a_corpus_reached_by_another_name_is_the_same(corpus: Preparation) -> None:
    root = corpus.corpus.directory
    (root.parent / "link").symlink_to(root)
    overrides = [f"corpus.directory={root.parent / 'x' / '..' / 'link'}"]
    linked = decode_preparation(load(root.parent / "recipe.yaml", overrides))
    (root.parent / "x").mkdir()
    assert len(find_garbage([corpus, linked])) == len(find_garbage([corpus])) == 3


def test_garbage_in_an_object_store(corpus: Preparation) -> None:
    import fsspec

    root = corpus.corpus.directory
    store = fsspec.filesystem("memory")
    for lock in root.rglob(".lock"):
        lock.unlink()
    store.put(str(root), "/collected", recursive=True)
    store.pipe_file("/collected/tokens/wordpiece-150-uncased/notes.txt", b"mine")
    try:
        overrides = ["corpus.directory=memory://collected"]
        far = decode_preparation(load(root.parent / "recipe.yaml", overrides))
        found = find_garbage([far])
        assert len(found) == 3
        assert {one.status for one in remove_garbage(found)} == {"removed"}
        left = [name for name in store.find("/collected") if "150" in name]
        assert left == ["/collected/tokens/wordpiece-150-uncased/notes.txt"]
        assert find_garbage([far]) == []
    finally:
        store.rm("/collected", recursive=True)


def test_a_file_that_cannot_be_removed_is_an_error(
    corpus: Preparation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, os.strerror(13), str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    recipe = corpus.corpus.directory.parent / "recipe.yaml"
    assert main(["status", str(recipe), "--gc", "--delete"]) == 1
    assert "Permission denied" in capsys.readouterr().err


def test_what_a_stage_made_since_it_was_found_stays(corpus: Preparation) -> None:
    documents = corpus.documents_directory
    path = documents / "train" / "part-00000.arrow"
    manifest = json.loads((documents / "manifest.json").read_text())
    kept = manifest["shards"]
    manifest["shards"] = [one for one in kept if one["name"] != "train/part-00000.arrow"]
    (documents / "manifest.json").write_text(json.dumps(manifest))
    found = [one for one in find_garbage([corpus]) if one.what == "orphan shards"]
    assert [list(one.files) for one in found] == [["train/part-00000.arrow"]]
    (documents / "manifest.json").write_text(json.dumps({**manifest, "shards": kept}))
    remove_garbage(found)
    assert path.exists()


def test_a_lock_that_is_removed_while_somebody_waits_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = fcntl.flock

    def removed_just_before(lock: Any, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", plain)
        (tmp_path / ".lock").unlink()
        plain(lock, how)

    monkeypatch.setattr(fcntl, "flock", removed_just_before)
    with exclusive(tmp_path):
        assert (tmp_path / ".lock").exists()
        with pytest.raises(BusyError), exclusive(tmp_path):
            pass


def test_orphan_shards_of_shorter_rows_are_found(corpus: Preparation) -> None:
    name = "train/copy-000/length-00016/part-00000.arrow"
    orphan = corpus.examples_directory("pairs") / name
    orphan.parent.mkdir()
    orphan.write_bytes(b"rows")
    (found,) = (one for one in find_garbage([corpus]) if one.what == "orphan shards")
    assert dict(found.files) == {name: 4}
