"""The three stages together, against the rule in plain Python."""

import itertools
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from corpora import make_text, prepare_config, run_stages, shard_rows, tree, write_documents

from preprocessing import storage
from preprocessing.documents import document_id
from preprocessing.duplicates import NearConfig, records
from preprocessing.duplicates.matching import MOST_LEADERS
from preprocessing.duplicates.minhash import band_keys, signatures
from preprocessing.settings import Preparation
from preprocessing.stages import matches as matches_module
from preprocessing.stages import signatures as signatures_module
from preprocessing.storage import InputError, Manifest
from preprocessing.texts import Texts

NEAR = {"threshold": 0.7, "ngram": 2}


def prepare(folder: Path, **corpus: Any) -> Preparation:
    return prepare_config(folder, corpus={"deduplicate": {"near": NEAR}} | corpus)


def kept(preparation: Preparation) -> dict[str, str]:
    """Splits by text."""
    manifest = Manifest.read(preparation.clean_directory)
    rows = [
        (row["text"], split)
        for split in manifest.splits
        for row in shard_rows(preparation.clean_directory, split)
    ]
    assert len(dict(rows)) == len(rows), "no text twice"
    return dict(rows)


def rejects(preparation: Preparation) -> list[dict[str, Any]]:
    logs = sorted((preparation.clean_directory / "rejects").glob("*.jsonl"))
    return [json.loads(line) for log in logs for line in log.read_text().splitlines()]


def edited(text: str, edits: int, draw: random.Random) -> str:
    """Some words replaced by ones that stand nowhere else."""
    words = text.split()
    for place in draw.sample(range(len(words)), edits):
        words[place] = f"new{draw.randrange(10**9)}"
    return " ".join(words)


def clusters(count: int, seed: int = 0) -> list[str]:
    """Documents with versions of themselves, edited more and more; shuffled."""
    draw = random.Random(seed)
    texts = []
    for number in range(count):
        words = [f"w{number}x{draw.randrange(60)}" for _ in range(draw.randint(1, 80))]
        text = " ".join(words)
        texts.append(text)
        for _ in range(draw.randrange(4)):
            text = edited(text, draw.randint(0, max(1, len(words) // 6)), draw)
            texts.append(text)
    texts += draw.choices(texts, k=count // 2)
    draw.shuffle(texts)
    return texts


def by_the_rule(
    texts: Sequence[str], ranks: Sequence[tuple[int, int]], near: NearConfig
) -> dict[int, tuple[str, set[int]]]:
    """What goes: the index of a document, why, and what it may be said to repeat."""
    found, present = signatures(Texts.of(pa.array(texts, pa.large_string())), near)
    keys = band_keys(found, near.bands)
    ids = [document_id(text) for text in texts]
    order = sorted(range(len(texts)), key=ranks.__getitem__)
    first: dict[bytes, int] = {}
    buckets: dict[int, list[int]] = {}
    for index in order:
        first.setdefault(ids[index], index)
        if present[index]:
            for key in keys[index].tolist():
                buckets.setdefault(key, []).append(index)
    gone: dict[int, tuple[str, set[int]]] = {}
    for bucket in buckets.values():
        leaders: list[int] = []
        for index in bucket:
            similar = [o for o in leaders if (found[o] == found[index]).mean() >= near.threshold]
            if similar:
                gone.setdefault(index, ("near_duplicate", set()))[1].add(similar[0])
            else:
                leaders.append(index)
        assert len(leaders) <= MOST_LEADERS
    for index in order:
        if first[ids[index]] != index:
            gone[index] = ("exact_duplicate", {first[ids[index]]})
    return gone


@pytest.mark.parametrize("seed", range(3))
def test_stages_do_what_the_rule_says(tmp_path: Path, seed: int) -> None:
    texts = clusters(60, seed)
    own, training = texts[:30], texts[30:]
    write_documents(tmp_path / "own" / "v.txt", own)
    write_documents(tmp_path / "raw" / "a.txt", training[:70])
    write_documents(tmp_path / "raw" / "b.txt", training[70:])
    validation = {"own": {"inputs": [str(tmp_path / "own" / "v.txt")]}, "held": {"share": 0.3}}
    preparation = prepare(tmp_path, validation=validation, shard_bytes=1500)
    run_stages(preparation, ["ingest", "deduplicate"])
    assert len(Manifest.read(preparation.documents_directory).shards) > 8

    without = prepare(
        tmp_path, validation=validation, deduplicate={}, directory=str(tmp_path / "exact")
    )
    run_stages(without, ["ingest", "deduplicate"])
    splits = kept(without)  # every distinct text, in the split it belongs to
    classes = {"own": 0, "held": 1, "train": 2}
    ranks = [(classes[splits[text]] if n >= len(own) else 0, n) for n, text in enumerate(texts)]
    gone = by_the_rule(texts, ranks, NearConfig(**NEAR))

    reasons = [reason for reason, _ in gone.values()]
    counts = {reason: reasons.count(reason) for reason in sorted(set(reasons))}
    assert set(counts) == {"exact_duplicate", "near_duplicate"}
    assert Manifest.read(preparation.clean_directory).rejects == counts
    stays = [text for index, text in enumerate(texts) if index not in gone]
    result = kept(preparation)
    assert sorted(result) == sorted(stays)
    assert all(result[text] == splits[text] for text in stays)
    logged = sorted((row["id"], row["reason"]) for row in rejects(preparation))
    assert logged == sorted(
        (document_id(texts[index]).hex(), reason) for index, (reason, _) in gone.items()
    )
    repeated: dict[str, set[str]] = {}
    for index, (_, others) in gone.items():
        own_id = document_id(texts[index]).hex()
        repeated.setdefault(own_id, set()).update(document_id(texts[o]).hex() for o in others)
    for row in rejects(preparation):
        assert row["detail"].split()[-1] in repeated[row["id"]]


def test_edited_documents_go_as_often_as_their_similarity_says(tmp_path: Path) -> None:
    draw = random.Random(5)
    originals, versions, similarities = [], [], []
    for number in range(400):
        words = [f"w{number}x{place}" for place in range(200)]
        text = " ".join(words)
        other = edited(text, number % 40, draw)
        one, two = (
            set(itertools.pairwise(words)),
            set(itertools.pairwise(other.split())),
        )
        originals.append(text)
        versions.append(other)
        similarities.append(len(one & two) / len(one | two))
    write_documents(tmp_path / "raw" / "a.txt", originals + versions)
    preparation = prepare(tmp_path, validation={})
    run_stages(preparation, ["ingest", "deduplicate"])
    left = kept(preparation)
    assert all(text in left for text in originals), "the first one counts"
    goes = [text not in left or text == one for text, one in zip(versions, originals, strict=True)]
    near = [gone for gone, s in zip(goes, similarities, strict=True) if s >= 0.78]
    far = [gone for gone, s in zip(goes, similarities, strict=True) if s < 0.58]
    between = [gone for gone, s in zip(goes, similarities, strict=True) if 0.66 <= s < 0.74]
    assert len(near) > 90
    assert len(far) > 90
    assert sum(near) / len(near) > 0.97
    assert sum(far) / len(far) < 0.03
    assert 0.2 < sum(between) / len(between) < 0.8


def test_nothing_trained_on_is_nearly_what_is_validated_on(tmp_path: Path) -> None:
    draw = random.Random(1)
    originals = [" ".join(f"w{n}x{i}" for i in range(60)) for n in range(150)]
    versions = [edited(text, 2, draw) for text in originals]
    write_documents(tmp_path / "raw" / "a.txt", versions)  # before what they repeat
    write_documents(tmp_path / "raw" / "b.txt", originals[:100])
    write_documents(tmp_path / "own" / "v.txt", originals[100:])
    validation = {"own": {"inputs": [str(tmp_path / "own" / "v.txt")]}, "held": {"share": 0.3}}
    preparation = prepare(tmp_path, validation=validation, shard_bytes=3000)
    run_stages(preparation, ["ingest", "deduplicate"])
    left = kept(preparation)
    assert [text for text, split in left.items() if split == "own"] == originals[100:]
    pairs = list(zip(originals, versions, strict=True))
    assert all((one in left) != (other in left) for one, other in pairs), "one of each pair stays"
    alone = prepare(
        tmp_path, validation=validation, deduplicate={}, directory=str(tmp_path / "exact")
    )
    run_stages(alone, ["ingest", "deduplicate"])
    splits = kept(alone)
    held = [pair for pair in pairs[:100] if "held" in (splits[pair[0]], splits[pair[1]])]
    assert len(held) > 30
    for pair in held:
        (text,) = [text for text in pair if text in left]
        assert left[text] == "held", "the held-out one of the two"


def test_short_and_wordless_documents(tmp_path: Path) -> None:
    texts = [
        "Go on!",
        "go on",
        "GO ON .",
        "go",
        "on go",
        "!!!",
        "...",
        "!!!",
        "— —",
        "a b c",
        "A b c.",
    ]
    write_documents(tmp_path / "raw" / "a.txt", texts)
    preparation = prepare(tmp_path, validation={})
    preparation_five = prepare_config(
        tmp_path,
        corpus={
            "deduplicate": {"near": {}},
            "validation": {},
            "directory": str(tmp_path / "five"),
        },
    )
    for one in (preparation, preparation_five):
        run_stages(one, ["ingest", "deduplicate"])
        assert list(kept(one)) == ["Go on!", "go", "on go", "!!!", "...", "— —", "a b c"]
        assert Manifest.read(one.clean_directory).rejects == {
            "exact_duplicate": 1,
            "near_duplicate": 3,
        }


def test_growing_never_moves_a_document_between_splits(tmp_path: Path) -> None:
    texts = clusters(120, seed=9)
    results = []
    for count in (80, 160, len(texts)):
        folder = tmp_path / str(count)
        write_documents(folder / "raw" / "a.txt", texts[:count])
        preparation = prepare(folder, validation={"a": {"share": 0.2}, "b": {"share": 0.2}})
        run_stages(preparation, ["ingest", "deduplicate"])
        results.append(kept(preparation))
    for small, large in itertools.pairwise(results):
        both = set(small) & set(large)
        assert len(both) > 0.8 * len(small)
        assert all(small[text] == large[text] for text in both)
        assert {"train", "a", "b"} == set(large.values())


@pytest.fixture
def corpus(tmp_path: Path) -> Preparation:
    texts = clusters(40, seed=3)
    write_documents(tmp_path / "raw" / "a.txt", texts)
    return prepare(tmp_path, shard_bytes=1500)


def outputs(preparation: Preparation) -> dict[str, bytes]:
    return {
        f"{directory.name}/{name}": data
        for directory in (
            preparation.signatures_directory,
            preparation.matches_directory,
            preparation.clean_directory,
        )
        for name, data in tree(directory).items()
        if not name.endswith(".lock")
    }


@pytest.mark.parametrize("workers", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_workers_make_no_difference(corpus: Preparation, tmp_path: Path, workers: int) -> None:
    run_stages(corpus, ["ingest", "deduplicate"])
    alone = outputs(corpus)
    shutil.rmtree(tmp_path / "data")
    many = prepare(tmp_path, shard_bytes=1500, workers=workers)
    run_stages(many, ["ingest", "deduplicate"])
    assert outputs(many) == alone


@pytest.mark.parametrize(("run", "most"), [(64, 4096), (50, 3), (7, 5)])
def test_runs_and_partitions_make_no_difference(
    corpus: Preparation, monkeypatch: pytest.MonkeyPatch, run: int, most: int
) -> None:
    run_stages(corpus, ["ingest", "deduplicate"])
    whole = tree(corpus.clean_directory)
    for directory in (corpus.clean_directory, corpus.signatures_directory.parent):
        shutil.rmtree(directory)
    for module in (records, signatures_module, matches_module):
        monkeypatch.setattr(module, "RUN", run)
    monkeypatch.setattr(records, "_MOST_PARTITIONS", most)
    monkeypatch.setattr(records, "SIGNATURE_ROWS", 3)
    monkeypatch.setattr(signatures_module, "SIGNATURE_ROWS", 3)
    run_stages(corpus, ["deduplicate"])
    parts = Manifest.read(corpus.matches_directory).shards
    assert len(parts) > 5
    again = tree(corpus.clean_directory)
    whole.pop("manifest.json")
    again.pop("manifest.json")  # it holds the digest of the matches' manifest
    assert again == whole


def test_stages_resume_after_a_cut_at_every_rename(
    corpus: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stages(corpus, ["ingest", "deduplicate"])
    undisturbed = outputs(corpus)
    rename, left = storage.rename, 0

    def cut(source: Path, target: Path) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(storage, "rename", cut)
    for step in (5, 12):  # a task has three shards and a record
        for directory in (corpus.clean_directory, corpus.signatures_directory.parent):
            shutil.rmtree(directory)
        cuts = 0
        while True:
            left = step
            try:
                run_stages(corpus, ["deduplicate"])
            except KeyboardInterrupt:
                cuts += 1
                assert cuts < 200
            else:
                break
        assert cuts > 10
        assert outputs(corpus) == undisturbed


def test_other_settings_are_refused_with_what_changed(corpus: Preparation, tmp_path: Path) -> None:
    run_stages(corpus, ["ingest", "deduplicate"])

    def refusal(near: dict[str, Any]) -> str:
        changed = prepare(tmp_path, shard_bytes=1500, deduplicate={"near": NEAR | near})
        with pytest.raises(InputError) as caught:
            run_stages(changed, ["deduplicate"])
        return str(caught.value)

    assert "near.ngram: 2 then, 3 now" in refusal({"ngram": 3})
    assert "near.threshold: 0.7 then, 0.701 now" in refusal({"threshold": 0.701})
    changed = prepare(tmp_path, shard_bytes=1500, deduplicate={"near": NEAR | {"threshold": 0.9}})
    run_stages(changed, ["deduplicate"], overwrite=True)
    assert {one.status for one in run_stages(changed, ["deduplicate"])} == {"up to date"}


def test_documents_that_differ_lastingly_stay(tmp_path: Path) -> None:
    texts = make_text(200, sentences=20)
    write_documents(tmp_path / "raw" / "a.txt", texts)
    preparation = prepare_config(tmp_path, corpus={"deduplicate": {"near": {}}, "validation": {}})
    run_stages(preparation, ["ingest", "deduplicate"])
    assert sorted(kept(preparation)) == sorted(set(texts))
