"""Documents that are taken down: all of them, nothing else, and safely so."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from corpora import make_text, prepare_config, run_stages, shard_rows, tree, write_documents

from preprocessing import records, storage
from preprocessing.console import main
from preprocessing.documents import document_id
from preprocessing.locks import BusyError, exclusive, shared
from preprocessing.settings import Preparation
from preprocessing.storage import MANIFEST, InputError, Manifest, verify_shards
from preprocessing.takedown import removal, request
from preprocessing.takedown.ledger import LEDGER, read
from preprocessing.takedown.request import JOURNAL, TakenDown, take_down

PREPARE = ("ingest", "clean", "deduplicate", "tokenizer", "tokenize", "examples")


@pytest.fixture
def documents() -> list[str]:
    return make_text(60, seed=4)


@pytest.fixture
def corpus(tmp_path: Path, documents: list[str]) -> Preparation:
    """Document 7 stands three times, once in other clothes; 9 has a near duplicate."""
    near = documents[9].replace(".", " indeed.", 1)
    write_documents(tmp_path / "raw" / "a.txt", [*documents[:30], documents[7], near])
    write_documents(tmp_path / "raw" / "b.txt", [*documents[30:], documents[7] + "\x00"])
    preparation = prepare_config(
        tmp_path,
        corpus={
            "shard_bytes": 2500,
            "clean": {"profiles": {"default": {"gopher": None, "repetition": None}}},
            "deduplicate": {"near": {"ngram": 1, "threshold": 0.8}},
        },
    )
    run_stages(preparation)
    return preparation


def down(preparation: Preparation, *ids: str, **options: Any) -> TakenDown:
    return take_down(preparation.corpus.directory, ids, **options)


def stores(preparation: Preparation) -> list[Path]:
    return [
        preparation.documents_directory,
        preparation.filtered_directory,
        preparation.clean_directory,
    ]


def row_of(directory: Path, text: str) -> dict[str, Any]:
    manifest = Manifest.read(directory)
    rows = [row for split in manifest.splits for row in shard_rows(directory, split)]
    (found,) = [row for row in rows if row["text"].strip("\x00") == text][:1]
    return found


def all_rows(directory: Path) -> int:
    return Manifest.read(directory).totals()["rows"]


def assert_gone(preparation: Preparation, text: str) -> None:
    """Nowhere below the corpus directory, not even as an id."""
    for path, data in tree(preparation.corpus.directory).items():
        if not path.startswith(("takedown.jsonl", "documents/rejects", "tokenizers")):
            assert text.encode() not in data, path
            assert document_id(text) not in data, path


def assert_whole(preparation: Preparation) -> None:
    """Manifests say what is there, and everything counts as up to date."""
    for directory in [*stores(preparation), preparation.tokens_directory]:
        manifest = Manifest.read(directory)
        verify_shards(directory, manifest.shards)
        for shard in manifest.shards:
            reader = storage.open_shard(directory / shard.name)
            assert sum(reader.get_batch(i).num_rows for i in range(reader.num_record_batches)) == (
                shard.rows
            )
    before = tree(preparation.corpus.directory)
    outcomes = run_stages(preparation)
    assert [one.status for one in outcomes[:-1]] == ["up to date"] * (len(outcomes) - 1)
    after = tree(preparation.corpus.directory)
    examples = {name for name in after if name.startswith("examples/")}
    assert {name: after[name] for name in after if name not in examples} == {
        name: before[name] for name in before if name not in examples
    }


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


def test_stale_output_stays_stale(corpus: Preparation, documents: list[str]) -> None:
    manifest = Manifest.read(corpus.filtered_directory)
    storage.write_json(corpus.documents_directory / "note.json", {})
    raw = Path(corpus.corpus.inputs[0]).parent / "b.txt"
    raw.write_text(raw.read_text() + "\nOne more line.\n")
    run_stages(corpus, ["ingest"], overwrite=True)
    down(corpus, document_id(documents[2]).hex())
    assert (
        Manifest.read(corpus.filtered_directory).inputs["documents"]
        == (manifest.inputs["documents"])
    )
    with pytest.raises(InputError, match="the input documents has changed"):
        run_stages(corpus, ["clean"])


class CutError(BaseException):
    pass


def test_cut_at_every_step_and_called_again(
    corpus: Preparation, documents: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = corpus.corpus.directory
    pristine = tmp_path / "pristine"
    shutil.copytree(whole, pristine)
    identity = document_id(documents[7]).hex()
    down(corpus, identity)
    expected = tree(whole)
    steps = left = 0
    rename, remove = storage.rename, storage.remove_tree

    def counted(operation: Any) -> Any:
        def step(*arguments: Any) -> None:
            nonlocal left
            if left == 0:
                raise CutError
            left -= 1
            operation(*arguments)

        return step

    monkeypatch.setattr(storage, "rename", counted(rename))
    monkeypatch.setattr(removal, "rename", counted(rename))
    monkeypatch.setattr(removal, "remove_tree", counted(remove))
    monkeypatch.setattr(request, "remove_tree", counted(remove))
    while True:
        shutil.rmtree(whole)
        shutil.copytree(pristine, whole)
        left = steps
        try:
            down(corpus, identity)
        except CutError:
            left = 10**9
            take_down(whole, [] if (whole / JOURNAL).exists() else [identity])
            assert tree(whole) == expected, steps
        else:
            break
        steps += 1
    assert steps > 20


def test_kept_rows_of_a_shard_keep_their_order_and_batches(
    corpus: Preparation, documents: list[str]
) -> None:
    directory = corpus.documents_directory
    before = [row for split in ("train",) for row in shard_rows(directory, split)]
    down(corpus, document_id(documents[11]).hex())
    after = shard_rows(directory, "train")
    assert after == [row for row in before if row["text"] != documents[11]]
    for shard in Manifest.read(directory).shards:
        with pa.memory_map(str(directory / shard.name)) as file:
            reader = pa.ipc.open_file(file)
            sizes = [reader.get_batch(i).num_rows for i in range(reader.num_record_batches)]
            assert all(size == 256 for size in sizes[:-1])


def test_command_line(
    corpus: Preparation,
    documents: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = str(tmp_path / "recipe.yaml")
    first, second, third = (document_id(text).hex() for text in documents[40:43])
    (tmp_path / "ids.txt").write_text(f"{second}\n\n{third}\n")
    words = ["takedown", recipe, first, "corpus.workers=1", "--reason", "a person asked"]
    assert main([*words, "--ids-file", str(tmp_path / "ids.txt"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert "takedown: 3 documents" in err
    assert f"removed {corpus.examples_directory('pairs')}; the next run builds it anew" in err
    result = json.loads(out.splitlines()[-1])
    assert {one["id"] for one in result["taken_down"]} == {first, second, third}
    assert result["removed"] == [str(corpus.examples_directory("pairs"))]
    assert set(result["rewritten"]) >= {str(corpus.clean_directory), str(corpus.tokens_directory)}
    assert main(["takedown", recipe, first]) == 0
    assert "nothing to do" in capsys.readouterr().err
    row = row_of(corpus.documents_directory, documents[43])
    place = ["--source", row["source"], "--offset", str(row["offset"])]
    assert main(["takedown", recipe, *place]) == 0
    assert_gone(corpus, documents[43])
    for bad, says in (
        (["0" * 32], "no document here is 0000"),
        (["xyz"], "not a document id"),
        (place[:2], "give both"),
        (["--ids-file", "missing.txt"], "missing.txt"),
    ):
        capsys.readouterr()
        assert main(["takedown", recipe, *bad]) in (1, 2)
        assert says in capsys.readouterr().err


@pytest.mark.parametrize("deduplicate", [{}, {"near": {"ngram": 1, "threshold": 0.8}}])
def test_what_is_left_is_what_stages_make_of_what_is_left(
    tmp_path: Path, documents: list[str], deduplicate: dict[str, Any]
) -> None:
    """Rows moved up in the records of duplicates: made anew, everything is the same."""
    copies = [documents[5], documents[6], documents[5].upper(), documents[8]]
    write_documents(tmp_path / "raw" / "a.txt", [*documents, *copies])
    preparation = prepare_config(tmp_path, corpus={"shard_bytes": 2500, "deduplicate": deduplicate})
    run_stages(preparation, ["ingest", "deduplicate"])
    down(preparation, *(document_id(text).hex() for text in [*documents[1:5], documents[6]]))
    left = tree(preparation.corpus.directory)
    for directory in (
        preparation.clean_directory,
        preparation.matches_directory,
        preparation.signatures_directory,
        preparation.documents_directory,
    ):
        shutil.rmtree(directory)
        run_stages(preparation, ["ingest", "deduplicate"])
        again = tree(preparation.corpus.directory)
        for name in {*left, *again}:
            if not name.startswith("documents/rejects"):  # what was taken down stands at the end
                assert again[name] == left[name], name


@pytest.mark.parametrize("name", ["filtered", "tokens/new", "examples/new/pairs-0"])
def test_a_stage_at_work_keeps_takedowns_out(
    corpus: Preparation, documents: list[str], name: str
) -> None:
    """One that has no manifest yet, and perhaps no records either."""
    directory = corpus.corpus.directory / name
    shutil.rmtree(directory, ignore_errors=True)
    before = tree(corpus.corpus.directory)
    with exclusive(directory):
        with pytest.raises(BusyError, match="another process is writing here"):
            down(corpus, document_id(documents[7]).hex())
        records.begin(directory, "a plan")
    with shared(directory), pytest.raises(BusyError):
        down(corpus, document_id(documents[7]).hex())
    shutil.rmtree(directory)
    assert {path: tree(corpus.corpus.directory)[path] for path in before} == before


def test_unfinished_output_goes(corpus: Preparation, documents: list[str]) -> None:
    """A stage that was killed leaves shards without a manifest; they may hold what goes."""
    unfinished = [corpus.tokens_directory, corpus.clean_directory, corpus.tokenizer_directory]
    for directory in unfinished:
        (directory / "manifest.json").unlink()
        storage.write_json(directory / records.RECORDS / "plan.json", "a plan")
    identity = document_id(documents[7])
    assert any(identity in data for data in tree(corpus.tokens_directory).values())
    done = down(corpus, identity.hex())
    assert set(unfinished) < set(done.removed)
    assert not any(directory.exists() for directory in unfinished)
    assert_gone(corpus, documents[7])
    assert [outcome.status for outcome in run_stages(corpus)][-3:] == ["made"] * 3


def test_output_of_what_is_no_more_goes(corpus: Preparation, documents: list[str]) -> None:
    """Examples of tokens, and tokens of documents, that were made anew since."""
    fitting = corpus.examples_directory("pairs")
    stale = fitting.with_name("pairs-00000000")
    other = corpus.tokens_directory.with_name("other")
    for source, copy, made_of in (
        (fitting, stale, "tokens"),
        (corpus.tokens_directory, other, "clean"),
    ):
        shutil.copytree(source, copy)
        manifest = Manifest.read(copy)
        replace(manifest, inputs={**manifest.inputs, made_of: "0" * 32}).write(copy)
    down(corpus, document_id(documents[9]).hex())
    assert not stale.exists()
    assert not other.exists()
    assert corpus.tokens_directory.exists()


def test_examples_of_tokens_that_lost_nothing_stay(
    corpus: Preparation, documents: list[str]
) -> None:
    """A document that was dropped while cleaning is in none of them."""
    before = tree(corpus.examples_directory("pairs"))
    gone = next(
        row
        for row in shard_rows(corpus.documents_directory, "train")
        if row["text"] == documents[9].replace(".", " indeed.", 1)
    )
    kept = document_id(documents[9])
    assert any(kept in data for data in tree(corpus.clean_directory).values())
    done = down(corpus, gone["id"].hex())
    assert done.removed == ()
    after = tree(corpus.examples_directory("pairs"))
    assert {n: b for n, b in after.items() if n != MANIFEST} == {
        n: b for n, b in before.items() if n != MANIFEST
    }
    assert_whole(corpus)


def test_annotated_tokens(tmp_path: Path, documents: list[str]) -> None:
    write_documents(tmp_path / "raw" / "a.txt", documents)
    lexicon = tmp_path / "phrases.tsv"
    lexicon.write_text("".join({f"{' '.join(t.split()[:2]).lower()}\n" for t in documents[:30]}))
    layer = {"path": str(lexicon), "case_sensitive": False}
    preparation = prepare_config(tmp_path, corpus={"annotations": {"phrases": [layer]}})
    run_stages(preparation)
    before = Manifest.read(preparation.tokens_directory).totals()
    down(preparation, document_id(documents[3]).hex())
    manifest = Manifest.read(preparation.tokens_directory)
    rows = [row for s in manifest.splits for row in shard_rows(preparation.tokens_directory, s)]
    assert manifest.totals()["phrases"] == sum(len(row["phrases"]) for row in rows)
    assert 0 < manifest.totals()["phrases"] < before["phrases"]
    assert manifest.totals()["phrases_dropped"] == before["phrases_dropped"]
    assert [one.status for one in run_stages(preparation)][-2:] == ["up to date", "made"]


def test_equal_file_names_are_told_apart(tmp_path: Path, documents: list[str]) -> None:
    """The first document of each file stands at place 0, and only one of them goes."""
    write_documents(tmp_path / "raw" / "data.txt", documents[:40])
    write_documents(tmp_path / "valid" / "data.txt", documents[40:])
    own = {"own": {"inputs": [str(tmp_path / "valid" / "data.txt")]}}
    preparation = prepare_config(tmp_path, corpus={"validation": own})
    run_stages(preparation, ["ingest", "deduplicate"])
    down(preparation, document_id(documents[40]).hex())
    for directory in (preparation.documents_directory, preparation.clean_directory):
        assert [row["text"].strip() for row in shard_rows(directory, "own")] == documents[41:]
        assert [row["text"].strip() for row in shard_rows(directory, "train")] == documents[:40]


@pytest.mark.parametrize("store", ["data", "memory://changed/data"])
def test_raw_files_that_changed_before_a_takedown_are_seen(
    tmp_path: Path, documents: list[str], store: str
) -> None:
    """The manifest's new date does not hide them, though their size is the same."""
    raw = write_documents(tmp_path / "raw" / "a.txt", documents)
    directory = store if "://" in store else str(tmp_path / store)
    preparation = prepare_config(tmp_path, corpus={"directory": directory})
    run_stages(preparation, ["ingest"])
    time.sleep(0.02)
    raw.write_text(raw.read_text().replace("a", "o"))
    time.sleep(0.02)
    down(preparation, document_id(documents[5]).hex())
    with pytest.raises(InputError, match=r"the input train/a\.txt has changed"):
        run_stages(preparation, ["ingest"])


def test_line_ends_that_only_texts_know(tmp_path: Path, documents: list[str]) -> None:
    """U+0085, U+2028 and U+2029 end no line of the ledger, nor of a reject log."""
    ends = "\x85\u2028\u2029"
    write_documents(tmp_path / "raw" / f"a{ends}b.txt", [*documents, "x"])
    write_documents(tmp_path / "raw" / "c.txt", documents[10:12])
    preparation = prepare_config(tmp_path, corpus={"clean": {"profiles": {"default": {}}}})
    run_stages(preparation, ["ingest", "clean"])
    rejected = Manifest.read(preparation.filtered_directory).rejects
    for number in (5, 6):
        down(preparation, document_id(documents[number]).hex(), reason=f"asked{ends}by him")
    down(preparation, document_id("x").hex())
    assert sum(Manifest.read(preparation.filtered_directory).rejects.values()) < sum(
        rejected.values()
    )
    entries = read(preparation.corpus.directory / LEDGER)
    assert [entry.reason for entry in entries if entry.reason] == [f"asked{ends}by him"] * 2
    assert [one.status for one in run_stages(preparation, ["ingest", "clean"])] == (
        ["up to date"] * 2
    )
