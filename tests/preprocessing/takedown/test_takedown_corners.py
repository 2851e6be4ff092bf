"""Takedowns that are cut, meet other work, or find more than they look for."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from corpora import EXAMPLES, prepare_config, run_stages, shard_rows, tree, write_documents
from taking import assert_gone, assert_whole, down, row_of

from preprocessing import records, storage
from preprocessing.console import main
from preprocessing.documents import document_id
from preprocessing.locks import BusyError, exclusive, shared
from preprocessing.settings import Preparation
from preprocessing.storage import MANIFEST, InputError, Manifest
from preprocessing.takedown import removal, request
from preprocessing.takedown.ledger import LEDGER, read
from preprocessing.takedown.request import JOURNAL, take_down


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


@pytest.mark.parametrize("source", ["first", "second"])
def test_examples_of_sources_that_lost_nothing_stay_and_tokenizers_do(
    tmp_path: Path, documents: list[str], source: str
) -> None:
    texts = {"first": documents[:30], "second": documents[30:]}
    for name, own in texts.items():
        write_documents(tmp_path / f"{name}.txt", own)
    corpus = prepare_config(
        tmp_path,
        corpus={
            "inputs": [],
            "sources": {name: {"inputs": [str(tmp_path / f"{name}.txt")]} for name in texts},
            "shard_bytes": 2500,
        },
        tokenizer={"kind": "wordpiece", "vocab_size": 200, "sources": ["first"]},
        examples={name: {**EXAMPLES["pairs"], "sources": [name]} for name in texts},
    )
    run_stages(corpus)
    kept = corpus.examples_directory("second" if source == "first" else "first")
    before = tree(kept)
    done = down(corpus, document_id(texts[source][5]).hex())
    assert done.removed == (corpus.examples_directory(source),)
    assert {name: data for name, data in tree(kept).items() if name != MANIFEST} == {
        name: data for name, data in before.items() if name != MANIFEST
    }
    assert_gone(corpus, texts[source][5])
    statuses = {one.directory: one.status for one in run_stages(corpus)}
    assert statuses.pop(corpus.examples_directory(source)) == "made"
    assert set(statuses.values()) == {"up to date"}
