"""ERNIE 2.0's sentence tasks and token labels on over a million real tokens."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import prepare_config, run_stages

from preprocessing.building import gather_rows, special_ids
from preprocessing.layouts import (
    DiscourseRelationConfig,
    SentenceDistanceConfig,
    SentenceReorderingConfig,
)
from preprocessing.layouts.base import FRAMES, Material
from preprocessing.layouts.sentence_reordering import first_class
from preprocessing.marks import CAPITAL, RECURS
from preprocessing.tokens import TokenStore
from preprocessing.vocabulary import Vocabulary

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def novels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Vocabulary, TokenStore]:
    if "LEXMILL_DATA" not in os.environ:
        pytest.skip("LEXMILL_DATA is not set")
    path = Path(os.environ["LEXMILL_DATA"]) / "en_novels" / "novels_en.txt"
    folder = tmp_path_factory.mktemp("novels")
    (folder / "raw").mkdir()
    text = path.read_text(encoding="utf-8")[:6_000_000]
    (folder / "raw" / "a.txt").write_text(text, encoding="utf-8")
    preparation = prepare_config(
        folder,
        tokenizer={"kind": "wordpiece", "vocab_size": 8000, "lowercase": True},
        corpus={"shard_bytes": 2**24, "validation": {}, "annotations": {"capitals": True}},
    )
    run_stages(preparation, ("ingest", "deduplicate", "tokenizer", "tokenize"))
    vocabulary = Vocabulary.load(preparation.tokenizer_directory)
    return vocabulary, TokenStore(preparation.tokens_directory, "train")


def shares_are(labels: Any, classes: Any, expected: float) -> None:
    """The share of some classes, within four standard errors."""
    found = np.isin(labels, classes).mean()
    assert abs(found - expected) < 4 * math.sqrt(expected * (1 - expected) / len(labels))


@pytest.mark.parametrize("length", [128, 512])
def test_reordering_loses_no_token_and_shuffles_uniformly(novels: Any, length: int) -> None:
    vocabulary, store = novels
    layout = SentenceReorderingConfig(kind="sentence_reordering")
    documents = range(store.num_documents)
    made = layout.cut(Material(store, documents, length, FRAMES["cls_sep"], seed=1, copy=0))
    total = sum(len(store.ids(document)) for document in documents)
    assert made.pieces.lengths.sum() == total > 1_000_000
    assert (made.lengths <= length).all()
    counts = np.diff(made.offsets)
    for segments in (1, 2, 3):
        low, high = first_class(segments), first_class(segments + 1)
        own = made.labels[counts == segments]
        assert low <= own.min() <= own.max() < high
        for label in range(low, high):
            if high - low > 1:
                shares_are(own, label, 1 / (high - low))
    rows = gather_rows(
        store,
        made,
        [[number] for number in range(len(made.ids))],
        special_ids(vocabulary),
        CAPITAL | RECURS,
    )
    marks = rows.sequences.marks
    capitals = sum(int(store.capitals(document).sum()) for document in documents)
    assert int((marks & CAPITAL > 0).sum()) == capitals
    assert 0.05 < capitals / total < 0.15  # measured: 0.085
    assert 0.7 < (marks & RECURS > 0).mean() < 0.95  # measured: 0.83, documents are chapters


@pytest.mark.parametrize("length", [128, 512])
def test_distances_are_equally_likely(novels: Any, length: int) -> None:
    _, store = novels
    layout = SentenceDistanceConfig(kind="sentence_distance")
    documents = range(store.num_documents)
    made = layout.cut(Material(store, documents, length, FRAMES["cls_sep"], seed=1, copy=0))
    assert made.pieces.lengths.sum() > 1_500_000
    assert (made.lengths <= length).all()
    shares = np.bincount(made.labels, minlength=3) / len(made.labels)
    assert (np.abs(shares - 1 / 3) < 0.03).all()  # measured: 0.32, 0.34, 0.33


def test_mined_sentences_hold_no_marker_where_they_were_parted(novels: Any) -> None:
    vocabulary, store = novels
    layout = DiscourseRelationConfig(kind="discourse_relation")
    cutter = layout.bind(vocabulary)
    documents = range(store.num_documents)
    made = cutter.cut(Material(store, documents, 512, FRAMES["cls_sep"], seed=1, copy=0))
    assert len(made.ids) > 4_000  # measured: 5,396
    assert set(made.labels.tolist()) == set(range(len(layout.relations)))
    for number in range(0, len(made.ids), 50):
        first, second = 2 * number, 2 * number + 1
        document = int(made.pieces.documents[first])
        assert made.pieces.documents[second] == document
        stop, start = int(made.pieces.stops[first]), int(made.pieces.starts[second])
        assert start > stop, "the marker is left out"
        if made.lengths[number] == 512:
            continue  # cut at the ends
        gap = vocabulary.decode(store.ids(document)[stop:start]).strip()
        assert gap.startswith(",") != gap.endswith(",")
        assert gap.strip(", ") in layout.markers[layout.relations[made.labels[number]]]
