import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from corpora import make_text, prepare_config, run_stages, shard_rows, write_documents
from tokenizers import Tokenizer

from preprocessing.documents import document_id
from preprocessing.sentences import split_sentences
from preprocessing.settings import Preparation
from preprocessing.stages.tokenize import sentence_bounds
from preprocessing.storage import Manifest
from preprocessing.texts import Texts
from preprocessing.tokens import TokenStore
from preprocessing.vocabulary import SPECIAL_TOKENS, Vocabulary

ODD = [
    'Dr. Hale said: "Stop!" He didn\'t. [MASK] is no token, nor is [CLS] or [SEP].',
    "東京は大きい。「行こう。」と言った。Mixed 漢字 and words.",
    "Naïve café — déjà vu… Ünïcödé ﬁ ligature. İstanbul. \u00a0Hard\u2003spaces.",
    "One line\nanother line\n\ttabbed line. 3.14 is pi. U.S.A. e.g. this.",
    "a" * 150 + " is a word of 150 letters. Short one.",
    "emoji 🙂🙃 and zero\u200bwidth. \U0001f9d1\u200d\U0001f680 Done.",
]


@pytest.fixture(scope="module", params=[True, False], ids=["uncased", "cased"])
def prepared(request: pytest.FixtureRequest, tmp_path_factory) -> Preparation:
    folder = tmp_path_factory.mktemp("tokenize")
    documents = [text.replace("\n\n", "\n") for text in ODD] + make_text(60)
    write_documents(folder / "raw" / "a.txt", documents)
    preparation = prepare_config(
        folder,
        tokenizer={"kind": "wordpiece", "vocab_size": 400, "lowercase": request.param},
    )
    run_stages(preparation)
    return preparation


def plain_tokenizer(preparation: Preparation) -> Tokenizer:
    """The library alone, on the file that was written."""
    tokenizer = Tokenizer.from_file(str(preparation.tokenizer_directory / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    return tokenizer


def test_ids_are_the_librarys(prepared: Preparation) -> None:
    tokenizer = plain_tokenizer(prepared)
    for split in ("train", "heldout"):
        texts = {row["id"]: row["text"] for row in shard_rows(prepared.clean_directory, split)}
        rows = shard_rows(prepared.tokens_directory, split)
        assert len(rows) == len(texts) > 0
        for row in rows:
            text = texts[row["id"]]
            sentences = [
                tokenizer.encode(text[start:stop], add_special_tokens=False).ids
                for start, stop in split_sentences(text)
            ]
            assert row["ids"] == [i for sentence in sentences for i in sentence]
            assert row["sentence_lengths"] == [len(ids) for ids in sentences if ids]
            assert row["ids"] == tokenizer.encode(text, add_special_tokens=False).ids
            assert sum(row["sentence_lengths"]) == len(row["ids"])
            pieces = [tokenizer.id_to_token(i) for i in row["ids"]]
            assert row["word_starts"] == [not piece.startswith("##") for piece in pieces]


def test_counts_of_the_manifest_are_those_of_the_rows(prepared: Preparation) -> None:
    manifest = Manifest.read(prepared.tokens_directory)
    unknown = plain_tokenizer(prepared).token_to_id("[UNK]")
    for split in manifest.splits:
        rows = shard_rows(prepared.tokens_directory, split)
        totals = manifest.totals(split)
        assert totals["rows"] == len(rows)
        assert totals["tokens"] == sum(len(row["ids"]) for row in rows)
        assert totals["sentences"] == sum(len(row["sentence_lengths"]) for row in rows)
        assert totals["unknown"] == sum(row["ids"].count(unknown) for row in rows)
    assert manifest.totals()["unknown"] > 0


def test_special_tokens_in_a_text_are_text(prepared: Preparation) -> None:
    vocabulary = Vocabulary.load(prepared.tokenizer_directory)
    special = {vocabulary.pad_id, vocabulary.start_id, vocabulary.separator_id, vocabulary.mask_id}
    for split in ("train", "heldout"):
        for row in shard_rows(prepared.tokens_directory, split):
            assert not special & set(row["ids"])
    (ids,) = vocabulary.encode(["[MASK]"])
    assert len(ids) >= 3
    assert [vocabulary.tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4]


def test_case_is_kept_or_not(prepared: Preparation) -> None:
    vocabulary = Vocabulary.load(prepared.tokenizer_directory)
    lower, upper = vocabulary.encode(["hale", "HALE"])
    assert isinstance(prepared.tokenizer.directory_name, str)
    uncased = prepared.tokenizer.directory_name.endswith("uncased")
    assert (lower == upper) == uncased


def test_store_gives_the_rows_of_the_shards(prepared: Preparation) -> None:
    store = TokenStore(prepared.tokens_directory, "train")
    rows = shard_rows(prepared.tokens_directory, "train")
    assert store.num_documents == len(rows)
    for document in np.random.default_rng(0).permutation(len(rows)).tolist():
        assert store.ids(document).tolist() == rows[document]["ids"]
        assert store.sentence_lengths(document).tolist() == rows[document]["sentence_lengths"]
    assert [i for own in store.shard_ranges for i in own] == list(range(len(rows)))
    assert store.ids(0).dtype == np.uint16


def test_every_shard_opens_without_our_code(prepared: Preparation, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    directories = [
        prepared.documents_directory,
        prepared.clean_directory,
        prepared.tokens_directory,
        prepared.examples_directory("pairs"),
    ]
    for directory in directories:
        manifest = Manifest.read(directory)
        split = manifest.splits[-1]
        files = [str(directory / shard.name) for shard in manifest.of(split)]
        loaded = datasets.load_dataset(
            "arrow", data_files={"rows": files}, cache_dir=str(tmp_path), split="rows"
        )
        assert loaded.num_rows == manifest.totals(split)["rows"]
        plain = shard_rows(directory, split)
        for name in plain[0]:
            assert loaded[0][name] == plain[0][name], name


def test_tokens_of_many_batches_and_pieces_of_shards(tmp_path: Path) -> None:
    """More documents than a record batch holds; a shard that is cut between its batches."""
    write_documents(tmp_path / "raw" / "a.txt", make_text(700, sentences=2))
    preparation = prepare_config(tmp_path, corpus={"shard_bytes": 2**20, "validation": {}})
    run_stages(preparation, ["ingest", "deduplicate", "tokenizer", "tokenize"])
    rows = shard_rows(preparation.tokens_directory, "train")
    # Cut the one shard of documents into its batches without cutting the documents anew.
    finer = prepare_config(tmp_path, corpus={"shard_bytes": 16384, "validation": {}})
    run_stages(finer, ["tokenize"], overwrite=True)
    manifest = Manifest.read(preparation.tokens_directory)
    assert len(manifest.shards) >= 2
    assert shard_rows(preparation.tokens_directory, "train") == rows
    store = TokenStore(preparation.tokens_directory, "train")
    assert [store.ids(document).tolist() for document in range(len(rows))] == [
        row["ids"] for row in rows
    ]


def test_document_without_tokens_is_counted(tmp_path: Path) -> None:
    write_documents(tmp_path / "raw" / "a.txt", [*make_text(30), "\x01\x02"])
    preparation = prepare_config(tmp_path, corpus={"validation": {}})
    run_stages(preparation)
    manifest = Manifest.read(preparation.tokens_directory)
    assert manifest.rejects == {"no_tokens": 1}
    (log,) = (preparation.tokens_directory / "rejects").glob("*.jsonl")
    (row,) = map(json.loads, log.read_text().splitlines())
    assert (row["reason"], row["id"]) == ("no_tokens", document_id("\x01\x02").hex())
    assert manifest.totals()["rows"] == 30


def test_sentences_begin_at_the_tokens_of_their_marks() -> None:
    """Three texts: two sentences, of which the first has no token; none; white space and one."""
    texts = Texts.of(pa.array(["\x01. So.", "", "  So"]))
    starts, places = np.array([0, 3, 8]), np.array([0, 0, 3])
    offsets = np.array([0, 2, 2, 4])
    assert sentence_bounds(texts, starts, places, offsets).tolist() == [0, 2, 4]
