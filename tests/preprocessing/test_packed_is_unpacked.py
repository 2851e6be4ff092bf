"""Whatever shares its row with others is what it would be alone: for every layout, every scheme.

The members of the two unions are asked for, so that a new one is tried as soon as it is there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
from corpora import make_text, prepare_config, run_stages, write_documents

from preprocessing.corruption import CorruptionConfig
from preprocessing.layouts import LayoutConfig
from preprocessing.rows import RowSet
from preprocessing.settings import Preparation

LENGTH = 48
MASKED = {"kind": "masked"}
BLOCKS = {"kind": "blocks"}


def kinds_of(union: Any) -> list[str]:
    """The kinds that a union of configurations knows."""
    members = get_args(get_args(union)[0])
    return [get_args(get_type_hints(member)["kind"])[0] for member in members]


CORRUPTIONS: Mapping[str, Mapping[str, Any]] = {
    "similar": {"words": {"kind": "cooccurring"}},
    "units": {"level": "words"},
    "unilm": {"mode": "sequence"},
}
"""Settings that schemes do not do without."""
LAYOUTS: Mapping[str, Mapping[str, Any]] = {
    "dialogues": {"speakers": ["Q:", "A:"]},
    "discourse_relation": {"markers": {"cause": ["because"], "contrast": ["but"]}},
}
FRAMES = {"xlnet": "sep_cls", "streams": "sep"}
WITH_DECODER = {"infilling", "prefix_denoising", "span_corruption"}
FULL = {"full_sentences", "streams", "xlnet"}
"""Layouts whose sequences fill their rows: there is hardly anything to pack."""


def prepare(folder: Path, examples: Mapping[str, Any]) -> Preparation:
    return prepare_config(
        folder,
        corpus={"annotations": {"capitals": True}, "shard_bytes": 16384},
        tokenizer={"kind": "wordpiece", "vocab_size": 260, "sentinels": 20},
        examples=examples,
    )


@pytest.fixture(scope="module")
def prose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with its tokens; sentences have markers between their halves."""
    folder = tmp_path_factory.mktemp("prose")
    documents = [
        text.replace(" lo", ", because lo").replace(" di", ", but di")
        for text in make_text(60, sentences=9)
    ]
    write_documents(folder / "raw" / "a.txt", documents)
    run_stages(
        prepare(folder, {"any": {"length": 32, "layout": BLOCKS, "corruption": MASKED}}),
        names=("ingest", "deduplicate", "tokenizer", "tokenize"),
    )
    return folder


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of dialogues."""
    folder = tmp_path_factory.mktemp("talks")
    turns = iter(make_text(240, seed=4, sentences=1))
    write_documents(
        folder / "raw" / "a.txt",
        ["\n".join(f"{speaker}: {next(turns)}" for speaker in "QAAQ") for _ in range(60)],
    )
    run_stages(
        prepare(folder, {"any": {"length": 32, "layout": BLOCKS, "corruption": MASKED}}),
        names=("ingest", "deduplicate", "tokenizer", "tokenize"),
    )
    return folder


@pytest.fixture(scope="module")
def triples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of queries, labels and titles."""
    folder = tmp_path_factory.mktemp("triples")
    texts = make_text(120, seed=3, sentences=1)
    lines = zip(texts[::2], texts[1::2], strict=True)
    write_documents(
        folder / "raw" / "a.txt",
        [f"{query}\n{place % 3}\n{title}" for place, (query, title) in enumerate(lines)],
    )
    run_stages(
        prepare(folder, {"any": {"length": 32, "layout": BLOCKS, "corruption": MASKED}}),
        names=("ingest", "deduplicate", "tokenizer", "tokenize"),
    )
    return folder


def apart(rows: RowSet, scheme: CorruptionConfig, *, epoch: int) -> dict[int, dict[str, list]]:
    """What the arrays of all rows say of each sequence: places counted from its beginning."""
    everything = np.arange(rows.num_rows[0])
    read = rows.read(0, everything)
    arrays = rows.arrays(scheme, everything, epoch=epoch)
    named = arrays.named()
    found: dict[int, dict[str, list]] = {}
    numbers = np.arange(len(read.row_of)) - np.searchsorted(read.row_of, read.row_of) + 1
    ids = read.sequences.ids.tolist()
    for id, row, number in zip(ids, read.row_of.tolist(), numbers.tolist(), strict=True):
        own: dict[str, list] = {}
        for side in ("", "decoder/"):
            if f"{side}ids" not in named:
                continue
            width = named[f"{side}ids"].shape[1]
            (places,) = np.nonzero(named[f"{side}sequence_ids"][row] == number)
            for name, values in named.items():
                if values.ndim == 2 and name.startswith("decoder/") == bool(side):
                    own[name] = values[row, places].tolist()
            own.pop(f"{side}sequence_ids")
            first = row * width + int(places[0])
            stop = first + len(places)
            for name, targets in arrays.targets.items():
                if targets.of_decoder != bool(side):
                    continue
                inside = (targets.indices >= first) & (targets.indices < stop)
                inside &= targets.labels >= 0
                own[f"{name} places"] = (targets.indices[inside] - first).tolist()
                own[f"{name} labels"] = targets.labels[inside].tolist()
                for key, values in targets.extra.items():
                    shift = first if key.endswith("_place") else 0
                    own[f"{name} {key}"] = (values[inside] - shift).tolist()
        found[id] = own
    assert len(found) == len(ids), "ids are unique"
    return found


def check(folder: Path, *, layout: Mapping[str, Any], corruption: Mapping[str, Any]) -> None:
    common = {
        "length": LENGTH,
        "layout": layout,
        "corruption": corruption,
        "frame": FRAMES.get(layout["kind"], "cls_sep"),
    }
    if corruption["kind"] in WITH_DECODER:
        common["decoder_length"] = LENGTH
    preparation = prepare(
        folder,
        {
            f"{layout['kind']}-{corruption['kind']}-{pack}": {**common, "pack": pack}
            for pack in (False, True)
        },
    )
    run_stages(preparation, names=("examples",))
    unpacked, packed = (
        RowSet(preparation.examples_directory(name), "train", seed=preparation.seed)
        for name in preparation.examples
    )
    scheme = next(iter(preparation.examples.values())).corruption
    for epoch in (0, 3):
        alone = apart(unpacked, scheme, epoch=epoch)
        together = apart(packed, scheme, epoch=epoch)
        assert alone.keys() == together.keys()
        for id, own in alone.items():
            assert together[id] == own
        asked = [name for name in own if name.endswith(" labels")]
        assert asked
        assert all(any(each[name] for each in alone.values()) for name in asked), asked
    assert len(alone) == unpacked.num_rows[0]
    if layout["kind"] not in FULL:
        assert packed.num_rows[0] < 0.9 * unpacked.num_rows[0]


CORPORA = {"dialogues": "talks", "relevance": "triples"}


@pytest.mark.parametrize("kind", kinds_of(LayoutConfig))
def test_every_layout(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(CORPORA.get(kind, "prose"))
    check(folder, layout={"kind": kind, **LAYOUTS.get(kind, {})}, corruption=MASKED)


@pytest.mark.parametrize("kind", kinds_of(CorruptionConfig))
def test_every_corruption(kind: str, prose: Path) -> None:
    check(prose, layout=BLOCKS, corruption={"kind": kind, **CORRUPTIONS.get(kind, {})})


def test_permutations_of_xlnets_rows_and_labels_of_pairs(prose: Path) -> None:
    check(prose, layout={"kind": "xlnet"}, corruption={"kind": "permutation"})
    check(prose, layout={"kind": "pairs"}, corruption={"kind": "unilm", "mode": "bidirectional"})
