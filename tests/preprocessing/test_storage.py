import json
import time
from pathlib import Path

import pyarrow as pa
import pytest
from corpora import ROAD, make_text, prepare_config, run_stages, tree, write_documents

from preprocessing import storage
from preprocessing.settings import Preparation
from preprocessing.storage import (
    InputError,
    Manifest,
    atomic_write,
    remove_temporaries,
    verify_shards,
    write_json,
    write_shard,
)


@pytest.fixture
def corpus(tmp_path: Path) -> Preparation:
    write_documents(tmp_path / "raw" / "a.txt", make_text(80))
    return prepare_config(tmp_path)


# -- files -------------------------------------------------------------------------------------


def test_file_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"

    def fail_half_way() -> None:
        with atomic_write(path) as file:
            file.write(b"half")
            assert [name.endswith(".writing") for name in tree(path.parent)] == [True]
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert tree(tmp_path) == {}
    with atomic_write(path) as file:
        file.write(b"whole")
        file.write(memoryview(b"!"))
    assert tree(tmp_path) == {"deep/file": b"whole!"}
    assert file.num_bytes == 6
    assert file.checksum == storage.file_digest(path)


def test_short_writes_are_continued(tmp_path: Path) -> None:
    class Slow:
        def __init__(self) -> None:
            self.data = b""

        def write(self, view: memoryview) -> int:
            self.data += bytes(view[:3])
            return min(3, len(view))

    slow = Slow()
    storage.write_all(slow, memoryview(b"0123456789"))  # type: ignore[arg-type]
    assert slow.data == b"0123456789"


def test_interrupted_writers_are_swept_up(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".part.arrow.0a1b2c3d.writing").write_bytes(b"x")
    (tmp_path / ".folder.writing").mkdir()
    (tmp_path / ".folder.writing" / "x").write_bytes(b"x")
    (tmp_path / "kept.writing").write_bytes(b"x")
    remove_temporaries(tmp_path)
    assert tree(tmp_path) == {"kept.writing": b"x"}


def test_record_batches_have_fixed_rows(tmp_path: Path) -> None:
    schema = pa.schema([pa.field("n", pa.int64())])
    path = tmp_path / "part.arrow"
    sizes = [3, 0, 9, 1, 1, 20, 2]
    numbers = iter(range(100))
    with write_shard(path, schema, 4) as writer:
        for size in sizes:
            values = pa.array([next(numbers) for _ in range(size)], pa.int64())
            writer.write(pa.RecordBatch.from_arrays([values], schema=schema))
        shard = writer.finish("part.arrow", {"n": 7})
    reader = pa.ipc.open_file(str(path))
    assert [reader.get_batch(i).num_rows for i in range(reader.num_record_batches)] == [4] * 9
    assert reader.read_all()["n"].to_pylist() == list(range(36))
    assert (shard.rows, shard.size) == (36, path.stat().st_size)
    verify_shards(tmp_path, [shard])


def test_empty_shard_is_a_whole_file(tmp_path: Path) -> None:
    schema = pa.schema([pa.field("n", pa.int64())])
    with write_shard(tmp_path / "part.arrow", schema, 4) as writer:
        shard = writer.finish("part.arrow", {})
    assert shard.rows == 0
    assert storage.open_shard(tmp_path / "part.arrow").num_record_batches == 0


def test_equal_values_give_equal_json_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"b": 1, "a": ["é", None]})
    write_json(tmp_path / "b", {"a": ["é", None], "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# -- manifests ---------------------------------------------------------------------------------


def test_manifests_hold_no_times_no_host_and_no_path(corpus: Preparation, tmp_path: Path) -> None:
    import getpass
    import socket

    outcomes = run_stages(corpus)
    for outcome in outcomes:
        text = (outcome.directory / "manifest.json").read_text()
        assert str(tmp_path) not in text
        assert socket.gethostname() not in text
        assert getpass.getuser() not in text or getpass.getuser() in ("train",)
        assert time.strftime("%Y-") not in text
        plain = json.loads(text)
        assert set(plain) == {
            "version",
            "tool_version",
            "stage",
            "configuration",
            "configuration_digest",
            "inputs",
            "shards",
            "totals",
            "rejects",
            "tables",
            "facts",
        }
        for shard in plain["shards"]:
            assert (outcome.directory / shard["name"]).stat().st_size == shard["size"]
        assert sum(own["rows"] for own in plain["totals"].values()) == sum(
            shard["rows"] for shard in plain["shards"]
        )
        assert outcome.manifest == Manifest.read(outcome.directory)
        assert not (outcome.directory / ".records").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "manifest version None"),
        ('{"version": 99}', "manifest version 99; this lexmill reads versions 1 and 2"),
        ('{"version": 2}', "not a manifest of ours ('stage')"),
        (
            '{"version": 2, "stage": "x", "configuration": 1, "inputs": {}, "shards": [{"a": 1}], '
            '"rejects": {}, "tables": {}, "facts": {}}',
            "not a manifest of ours",
        ),
    ],
)
def test_damaged_manifest_says_what_to_do(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError) as caught:
        Manifest.read(tmp_path)
    assert expected in str(caught.value)
    assert "remove this directory and run the stage again" in str(caught.value)


def test_missing_manifest_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no finished data here .* run the stage that makes it"):
        Manifest.read(tmp_path)


def test_wrong_checksum_and_missing_shard_are_named(corpus: Preparation) -> None:
    (outcome,) = run_stages(corpus, ["ingest"])
    shards = outcome.manifest.shards
    assert len(shards) >= 2
    verify_shards(outcome.directory, shards)
    path = outcome.directory / shards[1].name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"part-00001\.arrow: wrong checksum.*delete it and run"):
        verify_shards(outcome.directory, shards)
    path.write_bytes(data[:-9])
    with pytest.raises(InputError, match="wrong checksum"):
        verify_shards(outcome.directory, shards)
    path.unlink()
    with pytest.raises(InputError, match=r"part-00001\.arrow: .* is missing; run the stage again"):
        verify_shards(outcome.directory, shards)


def test_what_the_messages_advise_works(corpus: Preparation) -> None:
    """A damaged shard: delete it, run the stage again."""
    run_stages(corpus)
    for name in ROAD:
        before = run_stages(corpus, [name])[-1]
        assert before.status == "up to date"
        undisturbed = tree(before.directory)
        (before.directory / before.manifest.shards[-1].name).unlink()
        after = run_stages(corpus, [name])[-1]
        assert after.status == "made"
        assert tree(after.directory) == undisturbed
    assert all(outcome.status == "up to date" for outcome in run_stages(corpus))


def test_damaged_shard_of_an_earlier_stage_is_named(corpus: Preparation) -> None:
    run_stages(corpus, ["ingest"])
    path = corpus.documents_directory / "train" / "part-00000.arrow"
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(InputError, match=r"documents/train/part-00000\.arrow: not a whole Arrow"):
        run_stages(corpus, ["deduplicate"])
