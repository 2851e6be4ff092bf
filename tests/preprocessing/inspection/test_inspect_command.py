import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from corpora import shard_rows
from inspected import EVIL

from configs.schema import load
from preprocessing.console import main
from preprocessing.settings import Preparation, decode_preparation
from preprocessing.storage import Manifest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def inspect(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main(["inspect", *map(str, words)])
        except SystemExit as end:
            code = int(end.code or 0)
        return (code, *capsys.readouterr())

    return inspect


def as_json(run: Run, *words: object) -> Any:
    code, out, err = run(*words, "--json")
    assert code == 0, err
    (line,) = out.splitlines()
    return json.loads(line)


def preparation(recipe: Path) -> Preparation:
    return decode_preparation(load(recipe))


def test_a_recipe_shows_the_manifests_of_all_its_stages(run: Run, prepared: Path) -> None:
    outputs = as_json(run, prepared)["outputs"]
    names = [output["name"] for output in outputs]
    assert names == [
        "ingest", "signatures", "matches", "deduplicate", "tokenizer", "tokenize",
        "examples pairs", "examples blocks",
    ]  # fmt: skip
    assert outputs[0]["rejects"] == {"invalid_bytes": 1}
    assert outputs[0]["totals"]["train"]["rows"] == 121
    assert all(output["whole"] for output in outputs)
    code, out, _ = run(prepared)
    assert code == 0
    for part in ("invalid_bytes  1  100.0%", "by source", "vocab_size", "heldout/copy-000"):
        assert part in out
    assert "\x1b" not in out


def test_a_directory_a_manifest_and_a_recipe_name_the_same(run: Run, prepared: Path) -> None:
    directory = preparation(prepared).clean_directory
    shown = as_json(run, prepared, "deduplicate")
    assert shown == as_json(run, directory) == as_json(run, directory / "manifest.json")
    below = as_json(run, directory.parent)["outputs"]
    assert sorted(output["stage"] for output in below) == [
        "deduplicate", "examples", "examples", "ingest", "matches", "signatures", "tokenize",
        "tokenizer",
    ]  # fmt: skip


def test_rows_of_documents_are_those_of_the_shards(run: Run, prepared: Path) -> None:
    directory = preparation(prepared).clean_directory
    stored = shard_rows(directory, "train")
    for rows, expected in (("0:3", stored[:3]), ("7", stored[7:8]), ("50:90", stored[50:90])):
        shown = as_json(run, directory, "--rows", rows)["rows"]
        assert [row["text"] for row in shown] == [row["text"] for row in expected]
        assert [row["id"] for row in shown] == [row["id"].hex() for row in expected]
        first = int(rows.split(":")[0])
        assert [row["row"] for row in shown] == list(range(first, first + len(shown)))
    assert as_json(run, directory, "--rows", "1000:1010")["rows"] == []
    heldout = as_json(run, directory, "--split", "heldout", "--rows", "0:99")["rows"]
    assert [row["text"] for row in heldout] == [
        row["text"] for row in shard_rows(directory, "heldout")
    ]


def test_documents_are_found_by_id_in_any_split_and_by_text(run: Run, prepared: Path) -> None:
    directory = preparation(prepared).clean_directory
    for split in ("train", "heldout"):
        stored = shard_rows(directory, split)
        (found,) = as_json(run, directory, "--id", stored[-1]["id"].hex().upper())["rows"]
        assert found["text"] == stored[-1]["text"]
        assert found["row"] == len(stored) - 1
        assert found["shard"].startswith(f"{split}/")
    (found,) = as_json(run, prepared, "ingest", "--grep", "<script>")["rows"]
    assert found["text"] == EVIL
    everything = as_json(run, prepared, "ingest", "--grep", ".", "--rows", "0:999")["rows"]
    assert len(everything) == 121
    some = as_json(run, prepared, "ingest", "--grep", ".", "--rows", "3:5")["rows"]
    assert some == everything[3:5]
    shard = directory / Manifest.read(directory).of("train")[1].name
    assert as_json(run, shard, "--rows", "0")["rows"][0]["row"] == 0


def test_nothing_of_a_document_commands_the_terminal(run: Run, prepared: Path) -> None:
    code, out, _ = run(prepared, "ingest", "--grep", "Evil")
    assert code == 0
    assert "Evil ␛[31mred <U+202E>back <U+009B>2J <script>" in out
    assert not set("\x1b\x9b\u202e") & set(out)


def test_tokens_are_shown_by_sentence_with_their_words(run: Run, prepared: Path) -> None:
    directory = preparation(prepared).tokens_directory
    stored = shard_rows(directory, "train")
    (shown,) = as_json(run, directory, "--rows", "4")["rows"]
    assert shown["ids"] == stored[4]["ids"]
    assert shown["sentence_lengths"] == stored[4]["sentence_lengths"]
    assert len(shown["pieces"]) == len(shown["ids"])
    code, out, _ = run(directory, "--id", stored[4]["id"].hex())
    assert code == 0
    lines = [line.split(maxsplit=1)[1] for line in out.splitlines()[2:] if line.strip()]
    assert len(lines) == len(stored[4]["sentence_lengths"])
    words = sum(len(line.split(" ")) for line in lines)
    assert words == sum(stored[4]["word_starts"])
    assert "·".join(lines).replace("·", " ").split() == shown["pieces"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nowhere"], "nothing of this name"),
        (["RAW"], "no stage has finished anything"),
        (["RECIPE", "toknize"], "neither a stage nor an examples set"),
        (["RECIPE", "ingest", "tokenize"], "one stage or examples set at a time"),
        (["RECIPE", "--rows", "0:1"], "whose rows?"),
        (["RECIPE", "ingest", "--rows", "3:1"], "holds no row"),
        (["RECIPE", "ingest", "--rows", "a:b"], "not A:B"),
        (["RECIPE", "ingest", "--id", "xyz"], "not the beginning"),
        (["RECIPE", "ingest", "--split", "test"], "no split 'test'"),
        (["RECIPE", "ingest", "--epoch", "1"], "--epoch is for examples"),
        (["RECIPE", "pairs", "--grep", "x"], "neither ids nor text"),
        (["RECIPE", "pairs", "--split", "test"], "no split 'test'"),
        (["RECIPE", "tokenize", "--grep", "x"], "text of documents"),
        (["RECIPE", "ingest", "--rows", "1", "--html", "x.html"], "tells of all rows"),
        (["RECIPE", "corpus.frm=text"], "did you mean"),
        (["RAW", "ingest"], "behind a configuration"),
        (["gopher://x/y"], "no place for output"),
    ],
)
def test_what_cannot_be_shown_is_a_sentence(
    run: Run, prepared: Path, words: list[str], expected: str
) -> None:
    places = {"RECIPE": str(prepared), "RAW": str(prepared.parent / "raw")}
    code, _, err = run(*(places.get(word, word) for word in words))
    assert code == 2
    assert expected in " ".join(err.split())
    assert "Traceback" not in err


def _damage(path: Path, damage: str) -> None:
    data = path.read_bytes()
    match damage:
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case "empty":
            path.write_bytes(b"")
        case "gone":
            path.unlink()
        case "text":
            # The text of the documents, no longer UTF-8; Arrow's own marks stay as they were.
            middle = data.index(b". ")
            path.write_bytes(data[:middle] + b"\xff\xff" + data[middle + 2 :])


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "text"])
def test_damaged_shards_are_told_of(run: Run, prepared: Path, tmp_path: Path, damage: str) -> None:
    directory = tmp_path / "documents"
    shutil.copytree(preparation(prepared).documents_directory, directory)
    shard = Manifest.read(directory).shards[0].name
    _damage(directory / shard, damage)
    for words in ([directory, "--rows", "0:3"], [directory, "--html", tmp_path / "page.html"]):
        code, _, err = run(*words)
        assert code == 2, err
        assert shard in err
        assert "run the stage again" in err
        assert "Traceback" not in err
    if damage != "text":  # sizes are looked at, checksums are not
        code, out, _ = run(directory)
        assert code == 0
        assert "shards are missing or cut short" in out


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"version": 99}'])
def test_a_damaged_manifest_is_told_of(run: Run, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    code, _, err = run(tmp_path)
    assert code == 2
    assert "manifest.json" in err


def test_a_shard_without_a_manifest_is_read_as_it_is(
    run: Run, prepared: Path, tmp_path: Path
) -> None:
    corpus = preparation(prepared)
    for directory in (corpus.clean_directory, corpus.tokens_directory):
        shard = directory / Manifest.read(directory).shards[0].name
        alone = Path(shutil.copy(shard, tmp_path / "alone.arrow"))
        assert as_json(run, alone)["rows"][0]["id"] == as_json(run, shard)["rows"][0]["id"]
    examples = corpus.examples_directory("pairs")
    shutil.copy(examples / Manifest.read(examples).shards[0].name, alone)
    row = as_json(run, alone, "--rows", "2")["rows"][0]
    assert len(row["ids"]) == 32


def test_output_in_an_object_store_is_read_there(run: Run, prepared: Path) -> None:
    import fsspec

    directory = preparation(prepared).clean_directory
    store = fsspec.filesystem("memory")
    store.put(str(directory), "/inspected/clean", recursive=True)
    try:
        there = as_json(run, "memory://inspected/clean", "--rows", "5")
        assert there["rows"] == as_json(run, directory, "--rows", "5")["rows"]
        assert as_json(run, "memory://inspected/clean")["outputs"][0]["whole"]
    finally:
        store.rm("/inspected", recursive=True)


def test_the_command_alone_in_a_poor_locale(prepared: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "preprocessing", "inspect", str(prepared), "pairs", "--rows", "0"],
        capture_output=True,
        env={**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"[MASK]" in done.stdout
    assert b"\x1b" not in done.stdout
