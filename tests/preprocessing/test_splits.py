import itertools
import json
import os
from pathlib import Path

import pytest
from corpora import make_text, prepare_config, run_stages, shard_rows, tree, write_documents

from preprocessing.settings import Preparation
from preprocessing.storage import InputError, Manifest


def texts_of(preparation: Preparation, split: str) -> list[str]:
    return [row["text"] for row in shard_rows(preparation.clean_directory, split)]


def test_duplicates_go_across_shards_and_files(tmp_path: Path) -> None:
    documents = make_text(120)
    write_documents(tmp_path / "raw" / "a.txt", [*documents, *documents[:50]])
    write_documents(tmp_path / "raw" / "b.txt", documents[100:])
    preparation = prepare_config(tmp_path, corpus={"shard_bytes": 1500})
    run_stages(preparation, ["ingest", "deduplicate"])
    assert len(Manifest.read(preparation.documents_directory).shards) >= 5
    manifest = Manifest.read(preparation.clean_directory)
    assert manifest.rejects == {"exact_duplicate": 70}
    train, heldout = texts_of(preparation, "train"), texts_of(preparation, "heldout")
    assert sorted(train + heldout) == sorted(documents)
    kept = set(heldout)
    assert train == [text for text in documents if text not in kept], "the first one counts"


def test_no_validation_text_is_trained_on(tmp_path: Path) -> None:
    documents = make_text(100)
    write_documents(tmp_path / "raw" / "a.txt", documents)
    held = [*documents[10:20], *make_text(5, seed=9), documents[10]]
    write_documents(tmp_path / "own" / "v.txt", held)
    (tmp_path / "own" / "w.jsonl").write_text(
        "".join(json.dumps({"body": text}) + "\n" for text in documents[15:30])
    )
    validation = {
        "own": {"inputs": [str(tmp_path / "own" / "v.txt")]},
        "web": {
            "inputs": [str(tmp_path / "own" / "w.jsonl")],
            "form": "jsonl",
            "text_field": "body",
        },
        "share": {"share": 0.2},
    }
    preparation = prepare_config(tmp_path, corpus={"validation": validation})
    run_stages(preparation)
    sets = {split: texts_of(preparation, split) for split in ("train", "own", "web", "share")}
    assert sets["own"] == held[:-1]
    assert sets["web"] == documents[20:30]
    assert sorted(sets["train"] + sets["share"]) == sorted(documents[:10] + documents[30:])
    examples = Manifest.read(preparation.examples_directory("pairs"))
    assert examples.facts["splits"] == {"own": 1, "share": 1, "train": 2, "web": 1}


def test_split_is_stable_as_the_corpus_grows(tmp_path: Path) -> None:
    documents = make_text(300)
    sets = []
    for count in (100, 200, 300):
        folder = tmp_path / str(count)
        write_documents(folder / "raw" / "a.txt", documents[300 - count :])
        preparation = prepare_config(
            folder, corpus={"validation": {"a": {"share": 0.2}, "b": {"share": 0.1}}}
        )
        run_stages(preparation, ["ingest", "deduplicate"])
        sets.append(
            {text: split for split in ("train", "a", "b") for text in texts_of(preparation, split)}
        )
    for small, large in itertools.pairwise(sets):
        assert all(large[text] == split for text, split in small.items())
    shares = [list(sets[-1].values()).count(split) / 300 for split in ("a", "b")]
    assert abs(shares[0] - 0.2) < 4 * (0.16 / 300) ** 0.5
    assert abs(shares[1] - 0.1) < 4 * (0.09 / 300) ** 0.5


def test_another_seed_holds_out_others(tmp_path: Path) -> None:
    write_documents(tmp_path / "raw" / "a.txt", make_text(200))
    held = []
    for seed in (1, 2):
        directory = str(tmp_path / f"data-{seed}")
        preparation = prepare_config(tmp_path, seed=seed, corpus={"directory": directory})
        run_stages(preparation, ["ingest", "deduplicate"])
        held.append(set(texts_of(preparation, "heldout")))
    assert held[0]
    assert held[0] != held[1]


def test_validation_set_of_duplicates_alone_is_refused(tmp_path: Path) -> None:
    documents = make_text(30)
    write_documents(tmp_path / "raw" / "a.txt", documents)
    for name in "ab":
        write_documents(tmp_path / "own" / f"{name}.txt", documents[:3])
    validation = {name: {"inputs": [str(tmp_path / "own" / f"{name}.txt")]} for name in "ab"}
    preparation = prepare_config(tmp_path, corpus={"validation": validation})
    run_stages(preparation, ["ingest"])
    with pytest.raises(InputError, match="no document is left for 'b'"):
        run_stages(preparation, ["deduplicate"])


def test_rejects_are_listed_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    lines = ['{"text": "good one"}', "{", '{"txt": 1}', '{"text": ""}', '{"text": "good two"}']
    (tmp_path / "raw" / "a.txt").write_text("\n".join(lines))
    preparation = prepare_config(
        tmp_path, corpus={"form": "jsonl", "allowed_reject_share": 0.7, "validation": {}}
    )
    (outcome,) = run_stages(preparation, ["ingest"])
    assert outcome.manifest.rejects == {"empty_text": 1, "invalid_json": 1, "missing_text": 1}
    listed = (outcome.directory / "rejects" / "train-00000.jsonl").read_text().splitlines()
    rejects = [json.loads(line) for line in listed]
    assert [(r["reason"], r["source"]) for r in rejects] == [
        ("invalid_json", "a.txt"),
        ("missing_text", "a.txt"),
        ("empty_text", "a.txt"),
    ]
    assert all(lines[1:4][i][:1] == "{" and r["offset"] > 0 for i, r in enumerate(rejects))


def test_names_on_disk_need_not_be_utf8(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for number, name in enumerate((b"caf\xe9.txt", "東.txt".encode())):
        with open(os.fsencode(tmp_path / "raw") + b"/" + name, "w") as file:
            file.write(make_text(8, seed=number)[0])
    preparation = prepare_config(tmp_path, corpus={"validation": {}})
    (outcome,) = run_stages(preparation, ["ingest"])
    assert set(outcome.manifest.inputs) == {"train/caf\\xe9.txt", "train/東.txt"}
    assert len(tree(outcome.directory)) == 3
