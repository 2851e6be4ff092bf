"""What the tests of takedowns share."""

from pathlib import Path
from typing import Any

from corpora import run_stages, shard_rows, tree

from preprocessing import storage
from preprocessing.documents import document_id
from preprocessing.settings import Preparation
from preprocessing.storage import Manifest, verify_shards
from preprocessing.takedown.request import TakenDown, take_down

PREPARE = ("ingest", "clean", "deduplicate", "tokenizer", "tokenize", "examples")


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
