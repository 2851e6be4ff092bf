"""What documents and manifests call the raw files: no two of them the same."""

from pathlib import Path
from typing import Any

from corpora import make_text, prepare_config, run_stages, shard_rows, write_documents

from preprocessing.settings import Preparation
from preprocessing.storage import Manifest


def prepare(folder: Path, **corpus: Any) -> Preparation:
    preparation = prepare_config(folder, corpus=corpus)
    run_stages(preparation, ["ingest"])
    return preparation


def sources(preparation: Preparation) -> dict[str, set[str]]:
    directory = preparation.documents_directory
    splits = Manifest.read(directory).splits
    return {name: {row["source"] for row in shard_rows(directory, name)} for name in splits}


def write(folder: Path, *names: str) -> list[str]:
    paths = [folder / name for name in names]
    for path in paths:
        write_documents(path, make_text(3))
    return [str(path) for path in paths]


def test_validation_sets_stand_before_the_names_of_their_files(tmp_path: Path) -> None:
    preparation = prepare(
        tmp_path,
        inputs=write(tmp_path / "raw", "data.txt"),
        validation={
            "a": {"inputs": write(tmp_path / "first", "data.txt")},
            "b": {"inputs": write(tmp_path / "second", "data.txt", "deep/data.txt")},
        },
    )
    assert sources(preparation) == {
        "a": {"a/data.txt"},
        "b": {"b/data.txt", "b/deep/data.txt"},
        "train": {"data.txt"},
    }
    assert set(Manifest.read(preparation.documents_directory).inputs) == {
        "a/data.txt",
        "b/data.txt",
        "b/deep/data.txt",
        "train/data.txt",
    }
    assert run_stages(preparation, ["ingest"])[0].status == "up to date"


def test_names_that_a_folder_or_a_source_takes_already(tmp_path: Path) -> None:
    own = {"own": {"inputs": write(tmp_path / "valid", "data.txt")}}
    below = write(tmp_path / "raw", "own/data.txt", "other.txt")
    (tmp_path / "folder").mkdir()
    (tmp_path / "source").mkdir()
    by_folder = prepare(tmp_path / "folder", inputs=below, validation=own)
    assert sources(by_folder) == {
        "own": {"own/own/data.txt"},
        "train": {"own/data.txt", "other.txt"},
    }
    named = {"own": {"inputs": write(tmp_path / "books", "data.txt")}}
    by_source = prepare(tmp_path / "source", inputs=[], sources=named, validation=own)
    assert sources(by_source) == {"own": {"own/own/data.txt"}, "train": {"own/data.txt"}}
    for preparation in (by_folder, by_source):
        inputs = Manifest.read(preparation.documents_directory).inputs
        assert {"own/own/data.txt", "train/own/data.txt"} <= set(inputs)
        assert run_stages(preparation, ["ingest"])[0].status == "up to date"
