"""Documents that are taken down: all of them, nothing else, and safely so."""

import json
import shutil
from pathlib import Path

import pytest
from corpora import run_stages, shard_rows, tree, write_documents
from taking import all_rows, assert_gone, assert_whole, down, row_of, stores

from preprocessing.documents import document_id
from preprocessing.settings import Preparation
from preprocessing.storage import InputError, Manifest
from preprocessing.takedown.ledger import LEDGER, read
from preprocessing.takedown.request import TakenDown, take_down


def test_every_copy_goes_and_only_shards_with_one_are_written(
    corpus: Preparation, documents: list[str]
) -> None:
    text = documents[7]
    before = {path: path.stat().st_mtime_ns for path in corpus.corpus.directory.rglob("*.arrow")}
    content = {path: path.read_bytes() for path in before}
    rows = [all_rows(directory) for directory in stores(corpus)]
    done = down(corpus, document_id(text).hex(), reason="asked by the author")
    assert {entry.reason for entry in done.entries} == {"asked by the author"}
    assert [all_rows(directory) for directory in stores(corpus)] == [
        rows[0] - 3,
        rows[1] - 3,
        rows[2] - 1,
    ]
    assert_gone(corpus, text)
    assert_gone(corpus, text + "\x00")
    changed = {path for path in before if path.exists() and path.read_bytes() != content[path]}
    assert 0 < len([path for path in changed if path.is_relative_to(corpus.clean_directory)]) == 1
    for path, stamp in before.items():
        if path.exists() and path not in changed:
            assert path.stat().st_mtime_ns == stamp, path
    documents_manifest = Manifest.read(corpus.documents_directory)
    assert documents_manifest.rejects["taken_down"] == 3
    logs = (corpus.documents_directory / "rejects").glob("*.jsonl")
    logged = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    assert [row["detail"] for row in logged if row["reason"] == "taken_down"] == (
        ["asked by the author"] * 3
    )
    assert "exact_duplicate" not in Manifest.read(corpus.clean_directory).rejects
    assert [str(path) for path in done.removed] == [str(corpus.examples_directory("pairs"))]
    assert not corpus.examples_directory("pairs").exists()
    assert_whole(corpus)
    assert corpus.examples_directory("pairs").exists()


def test_manifest_counts_fit_what_is_left(corpus: Preparation, documents: list[str]) -> None:
    down(corpus, *(document_id(text).hex() for text in documents[10:14]))
    for directory in stores(corpus):
        manifest = Manifest.read(directory)
        rows = [row for split in manifest.splits for row in shard_rows(directory, split)]
        assert manifest.totals()["characters"] == sum(len(row["text"]) for row in rows)
        for table in ("documents by language", "documents by licence"):
            if table in manifest.tables:
                assert sum(manifest.tables[table].values()) == len(rows)
    manifest = Manifest.read(corpus.tokens_directory)
    rows = [row for s in manifest.splits for row in shard_rows(corpus.tokens_directory, s)]
    assert manifest.totals()["tokens"] == sum(len(row["ids"]) for row in rows)
    assert manifest.totals()["sentences"] == sum(len(row["sentence_lengths"]) for row in rows)
    fresh = run_stages(corpus)
    assert fresh[-1].status == "made"


def test_cleaned_ids_and_places_name_the_same_document(
    corpus: Preparation, documents: list[str], tmp_path: Path
) -> None:
    text = documents[7]
    dressed = document_id(text + "\x00").hex()  # as it was read only
    copy = tmp_path / "copy"
    shutil.copytree(corpus.corpus.directory, copy)
    down(corpus, dressed)
    by_raw_id = tree(corpus.corpus.directory)
    assert_gone(corpus, text)
    row = row_of(copy / "documents", text)
    take_down(copy, [], [(row["source"], row["offset"])])
    assert tree(copy) == by_raw_id


def test_near_duplicates_of_what_went_do_not_come_back(
    corpus: Preparation, documents: list[str]
) -> None:
    left = Manifest.read(corpus.clean_directory).rejects["near_duplicate"]
    assert left >= 1
    rows = all_rows(corpus.clean_directory)
    down(corpus, document_id(documents[9]).hex())
    assert all_rows(corpus.clean_directory) == rows - 1
    assert Manifest.read(corpus.clean_directory).rejects["near_duplicate"] == left
    assert_whole(corpus)


def test_what_was_taken_down_is_not_read_again(
    corpus: Preparation, documents: list[str], tmp_path: Path
) -> None:
    down(corpus, document_id(documents[7]).hex(), document_id(documents[20]).hex())
    ledger = (corpus.corpus.directory / LEDGER).read_bytes()
    for directory in corpus.corpus.directory.iterdir():
        if directory.is_dir():
            shutil.rmtree(directory)
    write_documents(tmp_path / "raw" / "c.txt", [documents[20], documents[7] + "\x01", "New one."])
    outcomes = run_stages(corpus)
    assert outcomes[0].manifest.rejects["taken_down"] == 5
    assert outcomes[1].manifest.rejects["taken_down"] == 1, "equal to one that went, once cleaned"
    assert_gone(corpus, documents[20])
    left = [row["text"] for row in shard_rows(corpus.clean_directory, "train")]
    assert "New one." in left
    assert documents[7] not in left
    assert (corpus.corpus.directory / LEDGER).read_bytes() == ledger


def test_again_is_nothing_to_do(corpus: Preparation, documents: list[str]) -> None:
    identity = document_id(documents[3]).hex()
    down(corpus, identity)
    before = tree(corpus.corpus.directory)
    assert down(corpus, identity) == TakenDown((), {}, ())
    assert down(corpus) == TakenDown((), {}, ())
    assert tree(corpus.corpus.directory) == before
    down(corpus, document_id(documents[4]).hex())
    entries = read(corpus.corpus.directory / LEDGER)
    assert len(entries) == len(set(entries)) == 2
    assert_whole(corpus)


@pytest.mark.parametrize("word", ["abc", "g" * 32, "00" * 16, "00" * 15])
def test_unknown_ids_change_nothing(corpus: Preparation, documents: list[str], word: str) -> None:
    before = tree(corpus.corpus.directory)
    with pytest.raises(InputError, match=r"not a document id|no document here is 0000"):
        down(corpus, document_id(documents[0]).hex(), word)
    assert tree(corpus.corpus.directory) == before
    with pytest.raises(InputError, match=r"no document here is a\.txt 1"):
        down(corpus, places=[("a.txt", 1)])
