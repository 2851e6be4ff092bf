"""Tables on their way: made once, kept beside the rows, taken down with their documents."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import make_text, prepare_config, run_stages, tree, write_documents

from preprocessing.commands import run_preparation, run_slices
from preprocessing.console import main
from preprocessing.documents import document_id
from preprocessing.executors.slices import TaskSlice
from preprocessing.garbage import UNREFERENCED, find_garbage
from preprocessing.inspection.outputs import stage_directories
from preprocessing.rows import RowSet
from preprocessing.settings import Preparation
from preprocessing.stages.build_tables import table_arrays
from preprocessing.status import stage_states
from preprocessing.storage import MANIFEST, InputError, Manifest, manifest_digest, verify_shards
from preprocessing.tables.files import read_array, write_array
from preprocessing.takedown.request import take_down
from preprocessing.tokens import TokenStore

SPANS = {"length": 32, "layout": {"kind": "blocks"}, "corruption": {"kind": "spans"}}
PLAIN = {"length": 32, "layout": {"kind": "blocks"}, "corruption": {"kind": "masked"}}
BEFORE = ("ingest", "deduplicate", "tokenizer", "tokenize")


def prepared(folder: Path, **sections: Any) -> Preparation:
    if not (folder / "raw").exists():
        write_documents(folder / "raw" / "a.txt", make_text(60))
    sections.setdefault("examples", {"plain": PLAIN, "spans": SPANS, "more": SPANS})
    return prepare_config(folder, **sections)


def frequencies(preparation: Preparation) -> np.ndarray:
    (table,) = preparation.tables
    return read_array(table_arrays(preparation.table_directory(table))["frequencies"])


def counted(store: TokenStore) -> np.ndarray:
    ids = np.concatenate([store.ids(one) for one in range(store.num_documents)])
    return np.bincount(ids, minlength=200)


def test_a_table_is_made_once_for_all_sets_that_ask(tmp_path: Path) -> None:
    preparation = prepared(tmp_path)
    outcomes = run_stages(preparation)
    assert [one.stage for one in outcomes[6:]] == ["counts", "tables", *["examples"] * 3]
    counts, tables = outcomes[6:8]
    shards = Manifest.read(preparation.tokens_directory).of("train")
    assert len(counts.manifest.shards) == len(shards) > 1
    verify_shards(tables.directory, tables.manifest.shards)
    found = frequencies(preparation)
    assert (found == counted(TokenStore(preparation.tokens_directory, "train"))).all()
    assert found[:5].sum() == found[1], "no special token but the unknown one"
    manifest = Manifest.read(preparation.examples_directory("spans"))
    assert manifest.inputs["table frequencies"] == manifest_digest(tables.directory)
    assert "table frequencies" not in Manifest.read(preparation.examples_directory("plain")).inputs
    assert all(one.status == "up to date" for one in run_stages(preparation))


def test_nothing_is_made_where_no_set_asks(tmp_path: Path) -> None:
    preparation = prepared(tmp_path, examples={"plain": PLAIN})
    assert preparation.tables == ()
    run_stages(preparation)
    made = {path.name for path in preparation.corpus.directory.iterdir()}
    assert not made & {"counts", "tables"}
    assert Manifest.read(preparation.examples_directory("plain")).facts["tables"] == {}


def test_an_examples_directory_alone_is_enough(tmp_path: Path) -> None:
    for mode in ("dynamic", "static"):
        folder = tmp_path / mode
        folder.mkdir()
        preparation = prepared(folder, examples={"spans": SPANS | {"mode": mode}})
        run_stages(preparation)
        expected = frequencies(preparation)
        alone = folder / "elsewhere"
        shutil.copytree(preparation.examples_directory("spans"), alone)
        shutil.rmtree(preparation.corpus.directory)
        rows = RowSet(alone, "train", seed=1)
        assert (rows.context.tables["frequencies"] == expected).all()
        assert rows.context.tables.keys() == {"frequencies", "cumulative_frequencies"}
        assert not rows.context.tables["frequencies"].flags.writeable, "mapped"
        arrays = rows.arrays(preparation.examples["spans"].corruption, np.arange(4), epoch=0)
        assert (arrays.targets["masked_lm"].labels >= 0).any()
        manifest = Manifest.read(alone)
        verify_shards(alone, manifest.shards)
        (alone / manifest.facts["tables"]["frequencies"]).unlink()
        with pytest.raises(InputError, match="missing"):
            RowSet(alone, "train", seed=1)


def test_workers_and_slices_make_the_same_bytes(tmp_path: Path) -> None:
    examples = {"spans": SPANS}
    preparation = prepared(tmp_path, examples=examples)
    run_stages(preparation, BEFORE)
    for name in ("workers", "slices"):
        (tmp_path / name).mkdir()
        shutil.copytree(tmp_path / "raw", tmp_path / name / "raw")
        shutil.copytree(preparation.corpus.directory, tmp_path / name / "data")
    run_stages(preparation, ("examples",))
    workers = prepared(tmp_path / "workers", corpus={"workers": 2}, examples=examples)
    run_stages(workers, ("examples",))
    slices = prepared(tmp_path / "slices", examples=examples)
    (table,) = slices.tables
    for made in (slices.counts_directory(table), slices.table_directory(table)):
        for index in range(2):
            assert list(run_slices(slices, "examples", TaskSlice(index, 2)))
        assert not (made / MANIFEST).exists()
        assert list(run_preparation(slices, ("examples",), merge=True))
        assert (made / MANIFEST).exists()
    run_stages(slices, ("examples",))
    trees = [tree(one.corpus.directory) for one in (preparation, workers, slices)]
    assert trees[0] == trees[1] == trees[2]


def test_each_set_looks_up_the_tokens_of_its_own_sources(tmp_path: Path) -> None:
    for name, seed in (("news", 1), ("prose", 2)):
        write_documents(tmp_path / "raw" / f"{name}.txt", make_text(30, seed=seed))
    sources = {
        name: {"inputs": [str(tmp_path / "raw" / f"{name}.txt")]} for name in ("news", "prose")
    }
    examples = {"both": SPANS, "news": SPANS | {"sources": ["news"]}}
    path = tmp_path / "recipe.yaml"
    prepare_config(tmp_path, examples=examples | {"news": SPANS})
    plain = json.loads(path.read_text())
    del plain["corpus"]["inputs"]
    plain["corpus"]["sources"], plain["examples"] = sources, examples
    path.write_text(json.dumps(plain))
    from configs.schema import load
    from preprocessing.settings import decode_preparation

    preparation = decode_preparation(load(path))
    run_stages(preparation)
    both, news = preparation.tables
    assert both.directory_name != news.directory_name
    for table, chosen in ((both, None), (news, ("news",))):
        found = read_array(table_arrays(preparation.table_directory(table))["frequencies"])
        store = TokenStore(preparation.tokens_directory, "train", chosen)
        assert (found == counted(store)).all()
    kept = RowSet(preparation.examples_directory("news"), "train", seed=1).context.tables
    assert (
        kept["frequencies"].sum()
        == counted(TokenStore(preparation.tokens_directory, "train", ("news",))).sum()
    )


def states(preparation: Preparation) -> dict[str, str]:
    return {one.name.partition("-")[0]: one.state for one in stage_states(preparation)}


def test_status_knows_the_tables(tmp_path: Path) -> None:
    preparation = prepared(tmp_path)
    run_stages(preparation, BEFORE)
    asked = {"counts frequencies", "tables frequencies"}
    found = states(preparation)
    assert {name for name, state in found.items() if state == "missing"} == {
        *asked, "examples plain", "examples spans", "examples more"
    }  # fmt: skip
    run_stages(preparation)
    assert set(states(preparation).values()) == {"up to date"}
    (table,) = preparation.tables
    shutil.rmtree(preparation.table_directory(table))
    found = states(preparation)
    assert found["tables frequencies"] == "missing"
    assert found["examples spans"] == "stale"
    assert found["examples plain"] == found["counts frequencies"] == "up to date"
    names = list(stage_directories(preparation))
    assert [name.partition(" ")[0] for name in names[5:8]] == ["tokenize", "counts", "tables"]
    outcomes = run_stages(preparation)
    assert [one.stage for one in outcomes if one.status == "made"] == ["tables"]
    assert set(states(preparation).values()) == {"up to date"}, "the same as before, to the bit"


def test_tables_that_no_recipe_asks_for_are_garbage(tmp_path: Path) -> None:
    preparation = prepared(tmp_path)
    run_stages(preparation)
    assert find_garbage([preparation]) == []
    (table,) = preparation.tables
    other = prepared(tmp_path, examples={"plain": PLAIN})
    gone = {one.directory for one in find_garbage([other]) if one.what == UNREFERENCED}
    assert gone == {
        preparation.counts_directory(table),
        preparation.table_directory(table),
        preparation.examples_directory("spans"),
        preparation.examples_directory("more"),
    }


def test_tables_go_with_a_document_and_are_made_anew(tmp_path: Path) -> None:
    documents = make_text(60)
    preparation = prepared(tmp_path, corpus={"deduplicate": {"near": None}})
    run_stages(preparation)
    before = frequencies(preparation)
    (table,) = preparation.tables
    store = TokenStore(preparation.tokens_directory, "train")
    train = {store._value("id", n).as_py() for n in range(store.num_documents)}
    text = next(one for one in documents if document_id(one) in train)
    done = take_down(preparation.corpus.directory, [document_id(text).hex()])
    gone = [preparation.counts_directory(table), preparation.table_directory(table)]
    assert set(gone) < set(done.removed)
    assert not any(directory.exists() for directory in gone)
    assert all("examples" in str(one) for one in set(done.removed) - set(gone))
    run_stages(preparation)
    after = frequencies(preparation)
    assert (after <= before).all()
    assert 0 < (before - after).sum() < before.sum()
    assert (after == counted(TokenStore(preparation.tokens_directory, "train"))).all()


def test_tables_stay_where_a_takedown_leaves_the_tokens(tmp_path: Path) -> None:
    """A copy that was dropped as a duplicate never came to the tokens."""
    documents = make_text(60)
    write_documents(tmp_path / "raw" / "a.txt", documents)
    near = documents[9].replace(".", " indeed.", 1)
    write_documents(tmp_path / "raw" / "b.txt", [near])
    preparation = prepared(
        tmp_path,
        corpus={"validation": {}, "deduplicate": {"near": {"ngram": 1, "threshold": 0.8}}},
    )
    run_stages(preparation)
    store = TokenStore(preparation.tokens_directory, "train")
    kept = {store._value("id", n).as_py() for n in range(store.num_documents)}
    dropped = [one for one in (near, documents[9]) if document_id(one) not in kept]
    assert len(dropped) == 1
    done = take_down(preparation.corpus.directory, [document_id(dropped[0]).hex()])
    assert done.removed == ()
    assert all(one.status == "up to date" for one in run_stages(preparation))


def test_inspect_and_statistics_pass_over_the_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preparation = prepared(tmp_path, examples={"spans": SPANS})
    run_stages(preparation)
    (table,) = preparation.tables
    for directory in (
        preparation.examples_directory("spans"),
        preparation.table_directory(table),
        preparation.counts_directory(table),
    ):
        capsys.readouterr()
        assert main(["inspect", str(directory), "--json"]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])
    page = tmp_path / "page.html"
    directory = preparation.examples_directory("spans")
    assert main(["inspect", str(directory), "--html", str(page)]) == 0
    assert "table" in page.read_text()


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["int64", "uint64", "int32", "float32", "uint8"])
@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_arrays_come_back_as_they_were(tmp_path: Path, kind: str, size: int) -> None:
    values = (np.random.default_rng(1).random(size) * 200).astype(kind)
    shard = write_array(tmp_path, "folder/part-00000.arrow", "numbers", values)
    assert (shard.rows, shard.size) == (size, (tmp_path / shard.name).stat().st_size)
    found = read_array(tmp_path / shard.name)
    assert found.dtype == values.dtype
    assert (found == values).all()
    assert found.flags.c_contiguous


def test_a_damaged_array_is_said_to_be_one(tmp_path: Path) -> None:
    shard = write_array(tmp_path, "part-00000.arrow", "numbers", np.arange(10))
    path = tmp_path / shard.name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"part-00000\.arrow"):
        read_array(path)


def test_tables_in_an_object_store_are_those_of_a_disk(tmp_path: Path) -> None:
    near = prepared(tmp_path, examples={"spans": SPANS})
    run_stages(near)
    far = prepared(
        tmp_path, corpus={"directory": "memory://tables-of-a-test"}, examples={"spans": SPANS}
    )
    run_stages(far)
    (table,) = far.tables
    assert manifest_digest(far.table_directory(table)) == manifest_digest(
        near.table_directory(table)
    )
    ours, theirs = (
        RowSet(one.examples_directory("spans"), "train", seed=1).context.tables
        for one in (near, far)
    )
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == theirs[name]).all() for name in ours)
