"""Rows that lie in an object store are those of a disk, over a cache of bounded size."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from corpora import make_text, prepare_config, run_stages, write_documents
from s3_proxy import BUCKET, Fault, FaultProxy, s3_server

from preprocessing import block_cache, columns, remote
from preprocessing.block_cache import BlockCache
from preprocessing.errors import UnreachableError
from preprocessing.places import RemotePath, to_place
from preprocessing.rows import RowSet
from preprocessing.settings import Preparation
from preprocessing.storage import Manifest, Shard

EXAMPLES = {
    "rows": {
        "length": 32,
        "layout": {"kind": "pairs"},
        "pack": True,
        "corruption": {"kind": "masked"},
    }
}


@pytest.fixture(scope="module")
def server() -> Iterator[FaultProxy]:
    with s3_server() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Preparation:
    folder = tmp_path_factory.mktemp("far_rows")
    write_documents(folder / "raw" / "a.txt", make_text(150))
    preparation = prepare_config(folder, examples=EXAMPLES)
    with pytest.MonkeyPatch.context() as patch:
        from preprocessing.stages import build_examples

        patch.setattr(build_examples, "ROWS_PER_BATCH", 4)
        run_stages(preparation)
    return preparation


@pytest.fixture(scope="module")
def far(prepared: Preparation, server: FaultProxy) -> RemotePath:
    """The examples as they are, in a bucket."""
    directory = prepared.examples_directory("rows")
    place = to_place(f"s3://{BUCKET}/rows")
    assert isinstance(place, RemotePath)
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            (place / str(path.relative_to(directory))).upload(path)
    return place


@pytest.fixture(autouse=True)
def small_and_hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_cache, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(columns, "MAX_HELD", 3)
    monkeypatch.setattr(columns, "MAX_OPEN", 2)
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0, 0.0))


def bytes_in(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def same(prepared: Preparation, far: RemotePath, cache: BlockCache | None, turns: int) -> None:
    near = RowSet(prepared.examples_directory("rows"), "train", seed=1)
    rows = RowSet(far, "train", seed=1, cache=cache)
    assert rows.num_rows == near.num_rows
    corruption = prepared.examples["rows"].corruption
    chooser = np.random.default_rng(0)
    for turn in range(turns):
        wanted = chooser.integers(0, near.num_rows[0], 1 + turn % 9)
        expected = near.arrays(corruption, wanted, epoch=turn).named()
        found = rows.arrays(corruption, wanted, epoch=turn).named()
        assert expected.keys() == found.keys()
        for name, values in expected.items():
            assert (values == found[name]).all(), name


def test_without_a_cache_rows_are_read_every_time(prepared: Preparation, far: RemotePath) -> None:
    same(prepared, far, None, turns=6)


def test_a_block_is_fetched_once_while_there_is_room(
    prepared: Preparation, far: RemotePath, server: FaultProxy, tmp_path: Path
) -> None:
    cache = BlockCache(tmp_path / "cache", 10**9)
    same(prepared, far, cache, turns=12)
    before = len(server.requests)
    same(prepared, far, cache, turns=12)
    asked = [path for _, path in server.requests[before:] if path.endswith(".arrow")]
    assert asked == []
    sizes = [shard.size for shard in Manifest.read(far).shards]
    assert bytes_in(cache.directory) <= sum(sizes)


def test_a_full_cache_lets_the_oldest_blocks_go(
    prepared: Preparation, far: RemotePath, tmp_path: Path
) -> None:
    whole = sum(shard.size for shard in Manifest.read(far).shards)
    cache = BlockCache(tmp_path / "cache", whole // 3)
    assert whole // 3 > 4000
    same(prepared, far, cache, turns=16)
    assert whole // 4 < bytes_in(cache.directory) <= cache.max_bytes * 17 / 16 + 1000


def test_blocks_that_are_cut_short_or_gone_are_fetched_anew(
    prepared: Preparation, far: RemotePath, tmp_path: Path
) -> None:
    cache = BlockCache(tmp_path / "cache", 10**9)
    same(prepared, far, cache, turns=6)
    for number, path in enumerate(sorted(cache.directory.rglob("0*"))):
        if path.is_file():
            path.unlink() if number % 2 else path.write_bytes(path.read_bytes()[:-3])
    same(prepared, far, cache, turns=6)


def test_a_network_that_fails_now_and_then_is_no_matter(
    prepared: Preparation, far: RemotePath, server: FaultProxy, tmp_path: Path
) -> None:
    faults: list[Fault] = ["500", "503", "drop", "cut"]
    server.happened.clear()
    server.plan = lambda number, method, path: faults[number % 4] if number % 3 == 0 else None
    try:
        same(prepared, far, BlockCache(tmp_path / "cache", 10**9), turns=6)
    finally:
        server.plan = lambda number, method, path: None
    assert len(server.happened) > 10


def test_a_network_that_is_gone_ends_with_a_sentence(
    prepared: Preparation, far: RemotePath, server: FaultProxy, tmp_path: Path
) -> None:
    rows = RowSet(far, "train", seed=1, cache=BlockCache(tmp_path / "cache", 10**9))
    server.plan = lambda number, method, path: "503"
    try:
        with pytest.raises(UnreachableError, match=r"s3://lexmill/rows/train.*could not read"):
            rows.read(0, np.arange(rows.num_rows[0]))
    finally:
        server.plan = lambda number, method, path: None


def test_what_others_keep_beside_the_blocks_stays(
    prepared: Preparation, far: RemotePath, tmp_path: Path
) -> None:
    others = [tmp_path / "mine.txt", tmp_path / "rows-0123" / "train" / "part-00000.arrow"]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a" * 9000)
    same(prepared, far, BlockCache(tmp_path, 5000), turns=8)
    assert all(path.read_bytes() == b"a" * 9000 for path in others)


def test_all_open_shards_of_a_process_keep_within_the_bound_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RemotePath, "read_range", lambda path, begin, end: bytes(end - begin))
    cache = BlockCache(tmp_path, 16 * 5000)
    shards = [Shard("a", 0, 5000, str(number)) for number in range(24)]
    files = [cache.open(RemotePath("memory://far"), shard) for shard in shards]
    for file in files:
        file.read(1)
    for file in files:
        file.read()
        assert bytes_in(tmp_path) <= cache.max_bytes * 17 / 16 + 1000


def test_a_block_that_is_removed_while_it_is_written_is_read_all_the_same(
    prepared: Preparation, far: RemotePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def written(path: Path, data: bytes) -> int:
        size = write(path, data)
        block_cache.make_room(tmp_path, 0)  # as another process that shares a cache too small
        return size

    monkeypatch.setattr(Path, "write_bytes", written)
    same(prepared, far, BlockCache(tmp_path, 10**9), turns=6)
    assert bytes_in(tmp_path) == 0
