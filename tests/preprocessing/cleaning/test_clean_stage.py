import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from corpora import make_text, prepare_config, run_stages, shard_rows, tree, write_documents

from preprocessing.documents import document_id, read_batches
from preprocessing.settings import Preparation
from preprocessing.stages.clean import _portions
from preprocessing.storage import InputError, Manifest

QUESTION = "which of the seven hills did the old king of rome choose for his house"
GOOD = [text for text in make_text(90, sentences=30) if len(text.split()) >= 40][:60]
EXPECTED = {
    "contaminated": 2,
    "gopher_bullet_lines": 1,
    "gopher_symbol_ratio": 1,
    "gopher_word_count": 3,
}
BAD = [
    *("Too short.", "&amp;", "Also  too\tshort."),
    *(f"{GOOD[0]} {QUESTION}", f"{QUESTION} {GOOD[1]}"),
    "\n".join(f"- {line}." for line in GOOD[2].split(".")),
    " # ".join(GOOD[3].split()),
]
CLEAN: dict[str, Any] = {
    "profiles": {
        "default": {"gopher": {"min_words": 10, "min_mean_word_length": None}, "repetition": None}
    },
}


def prepare(folder: Path, **corpus: Any) -> Preparation:
    texts = [*GOOD, *BAD, "Write to a@b.org.  " + GOOD[4]]
    order = [texts[(7 * index) % len(texts)] for index in range(len(texts))]
    assert len(set(order)) == len(texts)
    write_documents(folder / "raw" / "a.txt", order)
    (folder / "quiz.jsonl").write_text(json.dumps({"text": QUESTION}) + "\n", encoding="utf-8")
    sets = {"quiz": {"inputs": [str(folder / "quiz.jsonl")]}}
    clean = CLEAN | {"decontaminate": {"sets": sets}}
    return prepare_config(folder, corpus={"clean": clean} | corpus)


def test_every_document_is_kept_or_rejected_with_its_reason(tmp_path: Path) -> None:
    preparation = prepare(tmp_path)
    run_stages(preparation, ("ingest", "clean"))
    manifest = Manifest.read(preparation.filtered_directory)
    assert manifest.rejects == EXPECTED
    rows = shard_rows(preparation.filtered_directory, "train")
    documents = Manifest.read(preparation.documents_directory).totals()["rows"]
    assert len(rows) + sum(EXPECTED.values()) == documents
    assert all(row["id"] == document_id(row["text"]) for row in rows)
    assert [row["text"] for row in rows if "<email>" in row["text"]] == [
        "Write to <email>. " + GOOD[4]
    ]
    logged = [
        json.loads(line)
        for path in sorted((preparation.filtered_directory / "rejects").iterdir())
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert Counter(row["reason"] for row in logged) == EXPECTED
    places = {row["offset"] for row in rows} | {row["offset"] for row in logged}
    assert places == {r["offset"] for r in shard_rows(preparation.documents_directory, "train")}
    assert manifest.tables["documents by evaluation set"] == {"quiz": 2}
    assert manifest.tables["documents repaired"] == {
        "email": 1,
        "html_entities": 1,
        "white_space": 3,  # the short one, the one with the address, and the list
    }


@pytest.mark.parametrize("workers", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_the_output_does_not_depend_on_the_number_of_workers(tmp_path: Path, workers: int) -> None:
    trees = []
    for number in (1, workers):
        preparation = prepare(tmp_path / str(number), workers=number)
        run_stages(preparation, ("ingest", "clean"))
        assert len(Manifest.read(preparation.filtered_directory).shards) > 2
        trees.append(tree(preparation.filtered_directory))
    assert trees[0] == trees[1]


def test_a_changed_evaluation_set_is_a_changed_input(tmp_path: Path) -> None:
    preparation = prepare(tmp_path)
    run_stages(preparation, ("ingest", "clean"))
    assert [outcome.status for outcome in run_stages(preparation, ("clean",))] == ["up to date"]
    (tmp_path / "quiz.jsonl").write_text('{"text": "other words"}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"input evaluation/quiz/quiz\.jsonl has changed"):
        run_stages(preparation, ("clean",))


def test_no_path_is_kept(tmp_path: Path) -> None:
    preparation = prepare(tmp_path)
    run_stages(preparation, ("ingest", "clean"))
    everything = b"".join(tree(preparation.filtered_directory).values())
    assert str(tmp_path).encode() not in everything


def test_a_split_of_which_nothing_is_left_is_refused_with_the_reasons(tmp_path: Path) -> None:
    write_documents(tmp_path / "raw" / "a.txt", ["one two", "three four", "five"])
    preparation = prepare_config(tmp_path, corpus={"clean": {}})
    with pytest.raises(InputError, match=r"no document is left for 'train' of 3 \(3 gopher_word"):
        run_stages(preparation, ("ingest", "clean"))


def test_validation_files_are_cleaned_too(tmp_path: Path) -> None:
    write_documents(tmp_path / "raw" / "a.txt", GOOD)
    write_documents(tmp_path / "held" / "b.txt", ["Too short.", GOOD[0] + " More  of it."])
    validation = {"held": {"inputs": [str(tmp_path / "held" / "b.txt")]}}
    preparation = prepare_config(tmp_path, corpus={"clean": CLEAN, "validation": validation})
    run_stages(preparation, ("ingest", "clean"))
    rows = shard_rows(preparation.filtered_directory, "held")
    assert [row["text"] for row in rows] == [GOOD[0] + " More of it."]


def test_duplicates_are_looked_for_in_cleaned_texts(tmp_path: Path) -> None:
    twice = [text.replace(" ", "  ", 1) for text in GOOD[:5]]
    write_documents(tmp_path / "raw" / "a.txt", [*GOOD, *twice])
    preparation = prepare_config(tmp_path, corpus={"clean": CLEAN, "validation": {}})
    run_stages(preparation, ("ingest", "clean", "deduplicate"))
    assert Manifest.read(preparation.clean_directory).rejects["exact_duplicate"] == 5


def test_portions_hold_all_documents_in_order(tmp_path: Path) -> None:
    write_documents(tmp_path / "raw" / "a.txt", [str(i) * 3_000_000 for i in range(9)] + ["x"])
    preparation = prepare_config(tmp_path, corpus={"shard_bytes": 2**27, "validation": {}})
    run_stages(preparation, ("ingest",))
    (shard,) = Manifest.read(preparation.documents_directory).shards
    portions = list(_portions(preparation.documents_directory / shard.name))
    sizes = [sum(map(len, p.column("text").to_pylist())) for p in portions]
    assert max(sizes) <= 2**23 + 3_000_000
    assert len(sizes) > 3
    firsts = [text[0] for p in portions for text in p.column("text").to_pylist()]
    assert firsts == [*"012345678", "x"]


def test_record_batches_end_at_a_size_however_large_documents_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preprocessing.documents.BATCH_BYTES", 20_000)
    long = [" ".join([f"{index}th.", *GOOD[:40]]) for index in range(12)]
    write_documents(tmp_path / "raw" / "a.txt", long)
    profiles = {"default": {"gopher": None, "repetition": None}}
    preparation = prepare_config(
        tmp_path, corpus={"clean": {"profiles": profiles}, "shard_bytes": 2**20}
    )
    run_stages(preparation, ("ingest", "clean"))
    (path,) = (preparation.filtered_directory / "train").iterdir()
    sizes = [len("".join(batch.column("text").to_pylist())) for batch in read_batches(path)]
    assert sum(sizes) == len("".join(long))
    assert len(sizes) > 1
    assert max(sizes) < 20_000 + max(map(len, long))
