from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from corpora import make_text, prepare_config, run_stages, write_documents
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preprocessing import rows as rows_module
from preprocessing.corruption import Corrupted
from preprocessing.rows import IGNORED, Rows, RowSet, Shape, arrange, join
from preprocessing.settings import Preparation
from preprocessing.storage import InputError, Manifest

EXAMPLES = {
    "dynamic": {
        "length": 32,
        "layout": {"kind": "pairs"},
        "pack": True,
        "corruption": {"kind": "masked"},
        "copies": 2,
    }
}
EXAMPLES["static"] = EXAMPLES["dynamic"] | {"mode": "static"}


@pytest.fixture(scope="module")
def small_batches() -> object:
    """Record batches of seven rows, so that a tiny shard has many of them."""
    from preprocessing.stages import build_examples

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module, "ROWS_PER_BATCH", 7)
        patch.setattr(build_examples, "ROWS_PER_BATCH", 7)
        yield


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, small_batches: object) -> Preparation:
    folder = tmp_path_factory.mktemp("rows")
    write_documents(folder / "raw" / "a.txt", make_text(120))
    preparation = prepare_config(folder, examples=EXAMPLES)
    run_stages(preparation)
    return preparation


def stored(directory: Path, split: str) -> list[dict]:
    """The rows of a copy as plain values, without our reader."""
    found = []
    for shard in Manifest.read(directory).of(split):
        with pa.memory_map(str(directory / shard.name)) as file:
            found += pa.ipc.open_file(file).read_all().to_pylist()
    return found


def test_shards_have_many_record_batches_of_fixed_rows(prepared: Preparation) -> None:
    directory = prepared.examples_directory("static")
    shards = Manifest.read(directory).of("train/copy-000")
    assert len(shards) >= 3
    for shard in shards:
        reader = pa.ipc.open_file(pa.memory_map(str(directory / shard.name)))
        sizes = [reader.get_batch(i).num_rows for i in range(reader.num_record_batches)]
        assert set(sizes[:-1]) <= {7}
        assert 1 <= sizes[-1] <= 7
        assert sum(sizes) == shard.rows


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_every_row_is_found_by_arithmetic(prepared: Preparation, mode: str) -> None:
    directory = prepared.examples_directory(mode)
    rows = RowSet(directory, "train", seed=1)
    for copy, count in enumerate(rows.num_rows):
        expected = stored(directory, f"train/copy-{copy:03d}")
        assert count == len(expected)
        order = np.random.default_rng(copy).permutation(count)
        read = rows.read(copy, order)
        assert read.tokens.tolist() == [expected[row]["ids"] for row in order]
        for name, values in (
            ("sequences", read.ids),
            ("lengths", read.lengths),
            ("first_lengths", read.first_lengths),
            ("labels", read.labels),
        ):
            assert values.tolist() == [v for row in order for v in expected[row][name]]
        assert read.row_of.tolist() == [
            place for place, row in enumerate(order) for _ in expected[row]["lengths"]
        ]
        one = rows.read(copy, np.array([count - 1]))
        assert one.tokens.tolist() == [expected[-1]["ids"]]


@given(choice=st.lists(st.integers(0, 30), min_size=1, max_size=6), epoch=st.integers(0, 5))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_a_row_is_the_same_in_any_micro_batch(
    prepared: Preparation, mode: str, choice: list[int], epoch: int
) -> None:
    rows = RowSet(prepared.examples_directory(mode), "train", seed=1)
    config = prepared.examples[mode].corruption
    together = rows.arrays(config, np.array(choice), epoch=epoch)
    length, most = rows.shape.length, rows.shape.max_targets
    for place, row in enumerate(choice):
        alone = rows.arrays(config, np.array([row]), epoch=epoch)
        for name in ("ids", "sequence_ids", "positions", "segment_ids"):
            assert (getattr(together, name)[place] == getattr(alone, name)[0]).all()
        for name, (indices, labels) in alone.targets.items():
            every, every_label = together.targets[name]
            own = (every // length == place) & (every_label != IGNORED)
            assert (every[own] - place * length).tolist() == indices[labels != IGNORED].tolist()
            assert every_label[own].tolist() == labels[labels != IGNORED].tolist()
    assert together.targets["masked_lm"][0].shape == (len(choice) * most,)


def test_joined_micro_batches_are_one(prepared: Preparation) -> None:
    rows = RowSet(prepared.examples_directory("dynamic"), "train", seed=1)
    config = prepared.examples["dynamic"].corruption
    parts = [rows.arrays(config, np.array(own), epoch=1) for own in ([3, 4], [9], [20, 21, 22])]
    whole = rows.arrays(config, np.array([3, 4, 9, 20, 21, 22]), epoch=1)
    joined = join(parts)
    assert (joined.ids == whole.ids).all()
    assert (joined.positions == whole.positions).all()
    for name, (indices, labels) in whole.targets.items():
        got, got_labels = joined.targets[name]
        assert got.shape == indices.shape
        assert got[got_labels >= 0].tolist() == indices[labels >= 0].tolist()
        assert got_labels[got_labels >= 0].tolist() == labels[labels >= 0].tolist()


def test_arrange_by_hand() -> None:
    """Two packed sequences with padding, and one alone; shapes are static."""
    rows = Rows(
        tokens=np.array([[2, 7, 3, 8, 3, 2, 9, 3, 0], [2, 5, 6, 3, 0, 0, 0, 0, 0]]),
        row_of=np.array([0, 0, 1]),
        ids=np.array([70, 93, 94], np.uint64),
        lengths=np.array([5, 3, 4]),
        first_lengths=np.array([3, 3, 4]),
        labels=np.array([1, 0, 0]),
    )
    assert rows.starts.tolist() == [0, 5, 9]
    assert rows.rank.tolist() == [0, 1, 0]
    corrupted = Corrupted(rows.tokens.reshape(-1), np.array([1, 6, 11]), np.array([7, 9, 6]))
    arrays = arrange(rows, corrupted, Shape(9, max_targets=2, max_sequences=2, paired=True))
    assert arrays.sequence_ids.tolist() == [[1, 1, 1, 1, 1, 2, 2, 2, 0], [1] * 4 + [0] * 5]
    assert arrays.positions.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 0], [0, 1, 2, 3] + [0] * 5]
    assert arrays.segment_ids.tolist() == [[0, 0, 0, 1, 1, 0, 0, 0, 0], [0] * 9]
    indices, labels = arrays.targets["masked_lm"]
    assert indices.tolist() == [1, 6, 11, 0]
    assert labels.tolist() == [7, 9, 6, IGNORED]
    indices, labels = arrays.targets["next_sentence"]
    assert indices.tolist() == [0, 5, 9, 0]
    assert labels.tolist() == [1, 0, 0, IGNORED]


def test_unknown_split_names_the_others(prepared: Preparation) -> None:
    with pytest.raises(InputError, match=r"no split 'test' here, only heldout, train|train, held"):
        RowSet(prepared.examples_directory("static"), "test", seed=1)


def test_missing_shard_is_named(prepared: Preparation, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(prepared.examples_directory("static"), copy)
    (copy / "train" / "copy-001" / "part-00001.arrow").unlink()
    with pytest.raises(InputError, match=r"copy-001/part-00001\.arrow: .* is missing; run the st"):
        RowSet(copy, "train", seed=1)
    (copy / "train" / "copy-001" / "part-00001.arrow").write_bytes(b"ARROW1\0\0nonsense")
    with pytest.raises(InputError, match=r"part-00001\.arrow: not a whole Arrow file .* delete it"):
        RowSet(copy, "train", seed=1)
