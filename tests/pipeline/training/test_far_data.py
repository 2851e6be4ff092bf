"""Examples in an object store: staged, read by blocks or read as they are, the same examples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from small_run import prepare

from configs.schema import load
from pipeline.data import RowSource
from pipeline.inspecting import read_step
from pipeline.opening import open_data
from pipeline.settings import Run, decode_run
from pipeline.training.start import _verify
from preprocessing import staging
from preprocessing.places import to_place
from preprocessing.storage import MANIFEST, InputError

STORE = "memory://far/data"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A prepared corpus, and a copy of it in a store."""
    root = tmp_path_factory.mktemp("far")
    recipe = prepare(root)
    store = fsspec.filesystem("memory")
    for path in (root / "data").rglob("*"):
        if path.is_file():
            store.pipe_file(f"/far/data/{path.relative_to(root / 'data')}", path.read_bytes())
    yield recipe
    store.store.clear()


def decoded(recipe: Path, *changes: str) -> Run:
    return decode_run(load(recipe, list(changes)))


def far(recipe: Path, disk: Path, *changes: str) -> Run:
    local = f"train.far_data={{directory: {disk}}}"
    return decoded(recipe, f"corpus.directory={STORE}", local, *changes)


def rows_of(run: Run) -> list[np.ndarray]:
    found = []
    for source in open_data(run).phases:
        assert isinstance(source, RowSource)
        reader = source.open()
        for begin in range(0, 3 * reader.num_rows, 50):
            found += reader.arrays(range(begin, begin + 8)).named().values()
    return found


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_staged_or_by_blocks_the_examples_are_the_same(recipe: Path, tmp_path: Path) -> None:
    expected = rows_of(decoded(recipe))
    assert same(rows_of(decoded(recipe, f"corpus.directory={STORE}")), expected)
    assert same(rows_of(far(recipe, tmp_path / "blocks")), expected)
    assert any((tmp_path / "blocks").rglob("00000000"))
    staged = far(recipe, tmp_path / "staged", "train.far_data.stage=true")
    assert same(rows_of(staged), expected)
    assert open_data(staged).digests == open_data(decoded(recipe)).digests


def test_a_copy_that_was_cut_off_is_completed(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = to_place(f"{STORE}/examples/wordpiece-300-uncased")
    directory = next(path for path in source.iterdir() if path.name.startswith("pairs"))
    monkeypatch.setattr(staging, "_PIECE", 1000)
    asked: list[int] = []
    read_range = type(directory).read_range

    def cut(self: object, begin: int, end: int) -> bytes:
        asked.append(begin)
        if len(asked) == 9:
            raise KeyboardInterrupt
        return read_range(self, begin, end)  # type: ignore[arg-type]

    monkeypatch.setattr(type(directory), "read_range", cut)
    with pytest.raises(KeyboardInterrupt):
        staging.stage_shards(directory, tmp_path)
    copy = staging.stage_shards(directory, tmp_path)
    assert staging.stage_shards(directory, tmp_path) == copy
    for path in directory.find():
        if path.name != ".lock":
            assert (copy / str(path)[len(str(directory)) + 1 :]).read_bytes() == path.read_bytes()
    assert not [path.name for path in copy.rglob("*") if "writing" in path.name]


def test_damage_in_the_store_is_found_when_it_is_copied(recipe: Path, tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    (path,) = (
        name
        for name in store.find("/far/data/examples")
        if "pairs" in name and name.endswith("train/copy-000/part-00000.arrow")
    )
    whole = store.cat_file(path)
    store.pipe_file(path, whole[:-9] + b"?" + whole[-8:])
    try:
        with pytest.raises(InputError, match=r"part-00000\.arrow: wrong checksum"):
            open_data(far(recipe, tmp_path, "train.far_data.stage=true"))
    finally:
        store.pipe_file(path, whole)


def test_windows_shuffle_rows_in_another_order_and_leave_none_out(recipe: Path) -> None:
    def ids(*changes: str) -> list[int]:
        source = open_data(decoded(recipe, *changes)).phases[1]
        assert isinstance(source, RowSource)
        reader = source.open()
        (found,) = reader.find(np.arange(reader.num_rows))
        return list(found.rows.tolist())

    plain, windowed = ids(), ids("phases.1.shuffle_window=2")
    assert sorted(plain) == sorted(windowed) == list(range(len(plain)))
    assert plain != windowed


def test_what_a_killed_copy_left_is_cleared_away(recipe: Path, tmp_path: Path) -> None:
    run = far(recipe, tmp_path, "train.far_data.stage=true")
    copy = open_data(run).directories[0]
    (copy / MANIFEST).unlink()
    left = copy / "train" / "copy-000" / ".part-00000.arrow.0123abcd.writing"
    left.write_bytes(b"half")
    assert open_data(run).directories[0] == copy
    assert not left.exists()
    assert (copy / MANIFEST).exists()


def test_shards_are_verified_where_they_are_read(recipe: Path, tmp_path: Path) -> None:
    run = far(recipe, tmp_path, "train.far_data.stage=true")
    data = open_data(run)
    assert _verify(run, data, 0, 1) is None
    path = next(data.directories[0].rglob("part-00000.arrow"))
    path.write_bytes(path.read_bytes()[:-9] + b"?" + path.read_bytes()[-8:])
    assert f"{path}: wrong checksum" in (_verify(run, data, 0, 1) or "")


@pytest.mark.parametrize("stage", ["true", "false"])
def test_steps_of_far_examples_are_inspected(recipe: Path, tmp_path: Path, stage: str) -> None:
    changes = f"output.directory={tmp_path / 'run'}"
    expected = read_step(decoded(recipe, changes), 2)
    shown = read_step(far(recipe, tmp_path, f"train.far_data.stage={stage}", changes), 2)
    assert shown["fingerprint"] == expected["fingerprint"]
    assert shown["micro_batches"] == expected["micro_batches"]
