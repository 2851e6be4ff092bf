import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import make_text, prepare_config, run_stages, shard_rows, write_documents

from preprocessing.inspection.outputs import named
from preprocessing.inspection.statistics import gather
from preprocessing.layouts import RelevanceConfig
from preprocessing.layouts.base import FRAMES, Cut, Material
from preprocessing.layouts.relevance import RANDOM
from preprocessing.rows import RowSet
from preprocessing.settings import Preparation
from preprocessing.storage import InputError, Manifest
from preprocessing.tokens import TokenStore
from preprocessing.vocabulary import Vocabulary

STAGES = ("ingest", "deduplicate", "tokenizer", "tokenize")
WORDPIECE = {"kind": "wordpiece", "vocab_size": 200}


def triples(count: int) -> list[tuple[str, int, str]]:
    """Queries (some of two sentences), labels and titles (some of two sentences)."""
    texts = make_text(2 * count, sentences=2)
    return [(texts[2 * n], n * 7 % 3, f"{texts[2 * n + 1]} {n}") for n in range(count)]


def prepare(folder: Path, form: str, tokenizer: dict[str, Any], **sections: Any) -> Preparation:
    (folder / "raw").mkdir()
    path = folder / "raw" / f"clicks.{form}"
    names = ("query", "label", "title")
    rows = [(query, str(label), title) for query, label, title in triples(120)]
    if form == "jsonl":
        path.write_text(
            "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)
        )
    else:
        path.write_text("".join("\t".join(row) + "\n" for row in [names, *rows]))
    source = {"inputs": [str(path)], "form": form, "text_field": list(names)}
    corpus = {"inputs": [], "sources": {"clicks": source}}
    preparation = prepare_config(folder, tokenizer=tokenizer, corpus=corpus, **sections)
    run_stages(preparation, STAGES)
    return preparation


def cut(config: RelevanceConfig, preparation: Preparation, copy: int = 0) -> tuple[Cut, TokenStore]:
    vocabulary = Vocabulary.load(preparation.tokenizer_directory)
    store = TokenStore(preparation.tokens_directory, "train")
    frame = FRAMES["cls_sep"]
    bound = config.bind(vocabulary)
    documents = range(store.num_documents)
    return bound.cut(Material(store, documents, 512, frame, seed=1, copy=copy)), store


@pytest.mark.parametrize("form", ["jsonl", "tsv"])
@pytest.mark.parametrize(
    "tokenizer",
    [
        WORDPIECE,
        {"kind": "byte_level_bpe", "vocab_size": 400},
        {"kind": "unigram", "vocab_size": 100},
        {"kind": "characters", "vocab_size": 100},
    ],
    ids=lambda tokenizer: tokenizer["kind"],
)
def test_triples_of_files_are_pairs_with_their_labels(
    form: str, tokenizer: dict[str, Any], tmp_path: Path
) -> None:
    preparation = prepare(tmp_path, form, tokenizer)
    vocabulary = Vocabulary.load(preparation.tokenizer_directory)
    made, store = cut(RelevanceConfig(kind="relevance"), preparation)
    rows = shard_rows(preparation.clean_directory, "train")
    assert len(made.ids) == store.num_documents == len(rows) > 90
    known = {
        f"{query}\n{label}\n{title}": (query, label, title) for query, label, title in triples(120)
    }
    for number, row in enumerate(rows):
        query, label, title = known[row["text"]]
        assert made.labels[number] == label
        for piece, text in ((2 * number, query), (2 * number + 1, title)):
            assert made.pieces.documents[piece] == number
            own = store.ids(number)[made.pieces.starts[piece] : made.pieces.stops[piece]]
            spelled = vocabulary.decode(own).replace(" ", "").strip()
            assert spelled.lower() == text.replace(" ", "").lower()


def test_random_titles_are_those_of_other_triples(tmp_path: Path) -> None:
    preparation = prepare(tmp_path, "tsv", WORDPIECE)
    plain, store = cut(RelevanceConfig(kind="relevance"), preparation)
    config = RelevanceConfig(kind="relevance", random_probability=0.25)
    titles = {
        (int(document), int(start), int(stop))
        for document, start, stop in zip(
            plain.pieces.documents[1::2], plain.pieces.starts[1::2], plain.pieces.stops[1::2],
            strict=True,
        )
    }  # fmt: skip
    replaced = []
    for copy in range(20):
        made, _ = cut(config, preparation, copy)
        other = made.pieces.documents[1::2] != np.arange(store.num_documents)
        assert (made.labels[other] == RANDOM).all()
        assert (made.labels[~other] == plain.labels[~other]).all()
        assert (made.pieces.stops[::2] == plain.pieces.stops[::2]).all(), "the query stays"
        assert titles >= {
            (int(document), int(start), int(stop))
            for document, start, stop in zip(
                made.pieces.documents[1::2], made.pieces.starts[1::2], made.pieces.stops[1::2],
                strict=True,
            )
        }  # fmt: skip
        replaced += other.tolist()
    share, size = sum(replaced) / len(replaced), len(replaced)
    assert abs(share - 0.25) < 4 * math.sqrt(0.25 * 0.75 / size)


def test_rows_have_labels(tmp_path: Path) -> None:
    common = {
        "length": 32,
        "layout": {"kind": "relevance", "random_probability": 0.2},
        "pack": True,
        "corruption": {"kind": "masked"},
        "copies": 2,
    }
    examples = {mode: common | {"mode": mode} for mode in ("static", "dynamic")}
    preparation = prepare(tmp_path, "jsonl", WORDPIECE, examples=examples)
    run_stages(preparation, ("examples",))
    static, dynamic = (
        RowSet(preparation.examples_directory(mode), "train", seed=preparation.seed)
        for mode in ("static", "dynamic")
    )
    scheme = preparation.examples["dynamic"].corruption
    for epoch in range(2):
        rows = np.arange(dynamic.num_rows[epoch])
        one, other = (rowset.arrays(scheme, rows, epoch=epoch) for rowset in (static, dynamic))
        for name, values in one.named().items():
            assert (values == other.named()[name]).all(), name
        labels = one.targets["relevance"].labels
        assert set(labels[labels >= 0].tolist()) == {0, 1, 2}
    figures = gather(named(str(tmp_path / "recipe.yaml"), "dynamic", [])[0]).figures
    directory = preparation.examples_directory("dynamic")
    splits = Manifest.read(directory).splits
    flat = [
        label for one in splits for row in shard_rows(directory, one) for label in row["labels"]
    ]
    assert "random partners" not in figures
    for label in range(3):
        assert figures[f"relevance {label}"] == flat.count(label) / len(flat)


def test_documents_that_are_no_triples_are_refused(tmp_path: Path) -> None:
    write_documents(tmp_path / "raw" / "a.txt", [*make_text(30), "query\n7\ntitle", "0\n1"])
    preparation = prepare_config(tmp_path, tokenizer=WORDPIECE)
    run_stages(preparation, STAGES)
    # The digits are part of a small vocabulary only where the text has them.
    with pytest.raises(InputError, match=r"cannot spell the labels|is no triple of query"):
        cut(RelevanceConfig(kind="relevance"), preparation)
