import gzip
import json
import os
import random
import time
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import make_text, prepare_config, run_stages, shard_rows, tree, write_documents

from preprocessing import documents as document_shards
from preprocessing.reading import sources
from preprocessing.stage import run_stage
from preprocessing.stages import ingest as ingest_stage
from preprocessing.stages.ingest import Ingest
from preprocessing.storage import InputError, Manifest, open_shard


def many_forms(folder: Path) -> dict[str, Any]:
    """Sources of several forms, with rejects among them."""
    raw = folder / "raw"
    raw.mkdir(parents=True)
    texts = make_text(120)
    write_documents(raw / "a.txt", texts[:40])
    (raw / "b.txt.gz").write_bytes(gzip.compress("\n\n".join(texts[40:60]).encode())[:-30])
    (raw / "c.jsonl").write_text(
        "".join(json.dumps({"text": text, "lang": "en"}) + "\n" for text in texts[60:90])
        + '{\n{"text": ""}\n{"text": "deux", "lang": "fr"}\n{"text": "none"}\n'
    )
    pq.write_table(pa.table({"text": [*texts[90:], None]}), raw / "d.parquet")
    (raw / "e.txt").write_bytes("né\n\n\0ü\n\n\udc81".encode("cp1252", "surrogateescape"))
    return {
        "inputs": [],
        "sources": {
            "books": {"inputs": [f"{raw}/a.txt", f"{raw}/b.txt.gz"], "language": "en"},
            "web": {
                "inputs": [f"{raw}/c.jsonl"],
                "form": "jsonl",
                "language_field": "lang",
                "language": "xx",
                "licence": "CC0",
            },
            "table": {"inputs": [f"{raw}/*.parquet"], "form": "parquet"},
            "old": {
                "inputs": [f"{raw}/e.txt"],
                "encoding": "cp1252",
                "invalid_bytes": "replace",
            },
        },
        "shard_bytes": 1500,
        "allowed_reject_share": 0.5,
        "validation": {},
    }


def test_every_record_is_counted_by_source_language_and_licence(tmp_path: Path) -> None:
    preparation = prepare_config(tmp_path, corpus=many_forms(tmp_path))
    (outcome,) = run_stages(preparation, ["ingest"])
    manifest = outcome.manifest
    rows = shard_rows(outcome.directory, "train")
    assert manifest.rejects == {
        "damaged_archive": 1,
        "empty_text": 1,
        "invalid_json": 1,
        "missing_text": 1,
    }
    books = sum(row["source"].startswith("books/") for row in rows)
    assert 40 <= books < 60
    tables = manifest.tables
    assert tables["documents by source"] == {
        "train/books": books,
        "train/old": 3,
        "train/table": 30,
        "train/web": 32,
    }
    assert tables["rejects by source"] == {"train/books": 1, "train/table": 1, "train/web": 2}
    assert tables["documents by language"] == {"": 33, "en": books + 30, "fr": 1, "xx": 1}
    assert tables["documents by licence"] == {"": books + 33, "CC0": 32}
    assert tables["replaced bytes by source"] == {"train/old": 1}
    assert tables["NUL characters by source"] == {"train/old": 1}
    size = sum(len(row["text"].encode()) for row in rows)
    characters = sum(len(row["text"]) for row in rows)
    for name in ("source", "language", "licence"):
        assert sum(tables[f"bytes by {name}"].values()) == size
        assert sum(tables[f"characters by {name}"].values()) == characters
    assert manifest.totals()["characters"] == characters
    assert {row["source"] for row in rows if row["language"] == "xx"} == {"web/c.jsonl"}
    assert [row["text"] for row in rows if row["source"] == "old/e.txt"] == ["né", "\0ü", "\ufffd"]
    for row in rows:
        assert row["id"] == document_shards.document_id(row["text"])


def test_any_number_of_workers_leaves_the_same_bytes(tmp_path: Path) -> None:
    corpus = many_forms(tmp_path)
    trees = []
    for workers in (1, 2, 5):
        directory = tmp_path / f"data-{workers}"
        corpus |= {"directory": str(directory), "workers": workers}
        run_stages(prepare_config(tmp_path, corpus=corpus), ["ingest"])
        trees.append(tree(directory / "documents"))
    assert len(trees[0]) > 12
    assert trees[0] == trees[1] == trees[2]


def test_the_blocks_of_reading_do_not_show_in_the_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = many_forms(tmp_path) | {"shard_bytes": 5000}
    trees = []
    monkeypatch.setattr(document_shards, "BATCH_BYTES", 700)
    for block in (1 << 20, 50):
        monkeypatch.setattr("preprocessing.reading.base.BUFFER_BYTES", block)
        monkeypatch.setattr("preprocessing.reading.lines.BUFFER_BYTES", block)
        corpus |= {"directory": str(tmp_path / f"data-{block}")}
        (outcome,) = run_stages(prepare_config(tmp_path, corpus=corpus), ["ingest"])
        trees.append(tree(outcome.directory))
    assert trees[0] == trees[1]
    shard = outcome.manifest.shards[0]
    reader = open_shard(outcome.directory / shard.name)
    assert reader.num_record_batches > 3, "batches end with their bytes, too"


def outcome_of(folder: Path, path: Path, **corpus: Any) -> Manifest:
    settings = {"inputs": [str(path)], "validation": {}, "directory": str(folder)} | corpus
    preparation = prepare_config(path.parent, corpus=settings)
    return run_stage(Ingest(preparation), quiet=True).manifest


def test_digests_are_taken_while_reading_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_documents(tmp_path / "raw" / "a.txt", make_text(200))
    read: list[str] = []

    def digest_slices(slices: list[sources.Slice]) -> str:
        read.append(slices[0].source.url)
        return sources.digest_slices(slices)

    monkeypatch.setattr(ingest_stage, "digest_slices", digest_slices)
    manifest = outcome_of(tmp_path / "data", path, shard_bytes=2000)
    assert len(manifest.shards) > 5
    assert read == []
    size, _, digest = manifest.inputs["train/a.txt"].partition(":")
    assert (size, len(digest)) == (str(path.stat().st_size), 32)
    time.sleep(0.01)
    assert outcome_of(tmp_path / "data", path, shard_bytes=2000) == manifest
    assert read == []
    os.utime(path)
    assert outcome_of(tmp_path / "data", path, shard_bytes=2000) == manifest
    assert read == [str(path)]
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"the input train/a\.txt has changed"):
        outcome_of(tmp_path / "data", path, shard_bytes=2000)


def test_files_that_nobody_means_are_listed_in_the_manifest(tmp_path: Path) -> None:
    path = write_documents(tmp_path / "raw" / "a.txt", make_text(20))
    (path.parent / "a.txt~").write_text("old")
    (path.parent / "second.txt").symlink_to(path)
    manifest = outcome_of(tmp_path / "data", path.parent)
    assert manifest.facts == {"passed_over": ["a.txt~", "second.txt"]}
    assert list(manifest.inputs) == ["train/a.txt"]


def test_split_documents_are_counted(tmp_path: Path) -> None:
    path = write_documents(tmp_path / "a.txt", ["word " * 1000, "short"])
    manifest = outcome_of(tmp_path / "data", path, oversized="split", max_document_bytes=1024)
    assert manifest.tables["split documents by source"] == {"train": 1}
    assert manifest.totals()["rows"] == 6
    assert manifest.rejects == {}


def test_damage_ends_the_run_unless_it_is_allowed(tmp_path: Path) -> None:
    rng = random.Random(0)
    text = "\n\n".join(str(rng.random()) for _ in range(5000))
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(text.encode())[:-1000])
    with pytest.raises(InputError, match=r"1 damaged_archive.*allowed_reject_share=0\.001"):
        outcome_of(tmp_path / "data", path)
    (log,) = (tmp_path / "data" / "documents" / "rejects").iterdir()
    (reject,) = map(json.loads, log.read_text().splitlines())
    assert reject["source"] == "a.txt.gz"
    assert "the archive ends too early, at byte" in reject["detail"]
    assert outcome_of(tmp_path / "data", path, allowed_reject_share=0.001).rejects == {
        "damaged_archive": 1
    }


def test_no_secret_of_a_url_is_written_or_said(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/secret/a.txt", b"one\n\ntwo \xff")
    url = "memory://secret/a.txt"
    preparation = prepare_config(
        tmp_path, corpus={"inputs": [url], "validation": {}, "allowed_reject_share": 0.9}
    )
    stage = Ingest(preparation)
    manifest = run_stage(stage, quiet=True).manifest
    assert list(manifest.inputs) == ["train/a.txt"]
    for data in tree(stage.directory).values():
        assert b"memory://" not in data


def test_real_text_is_read_whole(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "en_novels" / "novels_en.txt"
    manifest = outcome_of(tmp_path / "data", path, shard_bytes=3_000_000)
    assert manifest.totals()["rows"] == 988
    text = path.read_text(encoding="utf-8")
    kept = sum(len(row["text"]) for row in shard_rows(tmp_path / "data" / "documents", "train"))
    assert text.count("\n") >= len(text) - kept > 0
