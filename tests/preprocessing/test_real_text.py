"""BERT's masking and pairing over a million tokens of real prose, through the real stages."""

import math
from pathlib import Path

import numpy as np
import pytest
from corpora import prepare_config, run_stages

from preprocessing.arrangement import Arrays
from preprocessing.rows import RowSet
from preprocessing.settings import Preparation
from preprocessing.storage import Manifest

BYTES = 6_000_000


@pytest.fixture(scope="module")
def novels(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Preparation:
    folder = tmp_path_factory.mktemp("novels")
    text = (real_data / "en_novels" / "novels_en.txt").read_bytes()[:BYTES]
    (folder / "raw").mkdir()
    (folder / "raw" / "a.txt").write_bytes(text[: text.rindex(b"\n\n")])
    masked = {"kind": "masked"}
    examples = {
        "pairs-128": {
            "length": 128,
            "layout": {"kind": "pairs"},
            "corruption": masked | {"max_targets": 20},
        },
        "blocks-128": {"length": 128, "layout": {"kind": "blocks"}, "corruption": masked},
        "blocks-512": {"length": 512, "layout": {"kind": "blocks"}, "corruption": masked},
    }
    preparation = prepare_config(
        folder,
        corpus={"shard_bytes": 2**21},
        tokenizer={"kind": "wordpiece", "vocab_size": 4096},
        examples=examples,
    )
    run_stages(preparation)
    return preparation


def micro_batches(novels: Preparation, name: str, epoch: int) -> tuple[RowSet, list[Arrays]]:
    rows = RowSet(novels.examples_directory(name), "train", seed=novels.seed)
    config = novels.examples[name].corruption
    starts = range(0, rows.num_rows[0], 512)
    return rows, [
        rows.arrays(config, np.arange(start, min(start + 512, rows.num_rows[0])), epoch=epoch)
        for start in starts
    ]


@pytest.mark.parametrize(
    ("name", "full", "expected"),
    [("pairs-128", 128, 19), ("blocks-128", 128, 19), ("blocks-512", 512, 77)],
)
def test_targets_of_real_rows(novels: Preparation, name: str, full: int, expected: int) -> None:
    rows, batches = micro_batches(novels, name, epoch=0)
    special = [rows.special.pad, rows.special.start, rows.special.separator]
    tokens = full_rows = picks = masked = kept = 0
    random_ids = np.zeros(rows.special.size, dtype=np.int64)
    for batch in batches:
        lengths = (batch.sequence_ids > 0).sum(axis=1)
        tokens += int(lengths.sum())
        asked = batch.targets["masked_lm"]
        real = asked.labels >= 0
        indices, labels = asked.indices[real], asked.labels[real]
        found = np.bincount(indices // batch.ids.shape[1], minlength=len(lengths))
        assert found.tolist() == [min(max(1, round(0.15 * n)), 77, n - 2) for n in lengths.tolist()]
        full_rows += int((lengths == full).sum())
        assert (found[lengths == full] == expected).all()
        assert not np.isin(labels, special).any()
        now = batch.ids.reshape(-1)[indices]
        picks += len(now)
        masked += int((now == rows.special.mask).sum())
        same = now == labels
        kept += int(same.sum())
        random_ids += np.bincount(now[~same], minlength=rows.special.size)
    assert tokens >= 1_000_000
    assert full_rows > 100
    size = rows.special.size
    for hits, share in ((masked, 0.8 + 0.1 / size), (kept, 0.1 + 0.1 / size)):
        assert abs(hits / picks - share) < 4 * math.sqrt(share * (1 - share) / picks)
    others = np.delete(random_ids, rows.special.mask)
    mean = others.sum() / others.size
    statistic = ((others - mean) ** 2 / mean).sum()
    # A frequent token is rarely seen as its own replacement: that is lost among the others.
    assert abs(statistic - others.size) < 6 * math.sqrt(2 * others.size)
    assert abs(picks / tokens - 0.15) < 0.002


def test_places_of_targets_are_uniform(novels: Preparation) -> None:
    _, batches = micro_batches(novels, "blocks-128", epoch=1)
    places = np.zeros(128, dtype=np.int64)
    for batch in batches:
        full = (batch.sequence_ids > 0).all(axis=1)
        asked = batch.targets["masked_lm"]
        indices = asked.indices[asked.labels >= 0]
        places += np.bincount(indices[full[indices // 128]] % 128, minlength=128)
    assert places[0] == places[127] == 0
    inside = places[1:127]
    mean = inside.sum() / inside.size
    assert ((inside - mean) ** 2 / mean).sum() < 125 + 4 * math.sqrt(2 * 125)


def test_pairs_of_real_text(novels: Preparation) -> None:
    directory = novels.examples_directory("pairs-128")
    totals = Manifest.read(directory).totals("train/copy-000")
    share = totals["label_1"] / totals["sequences"]
    assert 0.5 < share < 0.62, "half, and the chunks of one sentence"
    assert totals["slots"] == totals["rows"] * 128
    assert totals["tokens"] / totals["slots"] > 0.8


def test_blocks_lose_nothing(novels: Preparation) -> None:
    tokens = Manifest.read(novels.tokens_directory).totals("train")["tokens"]
    for name in ("blocks-128", "blocks-512"):
        totals = Manifest.read(novels.examples_directory(name)).totals("train/copy-000")
        assert totals["tokens"] - 2 * totals["sequences"] == tokens
