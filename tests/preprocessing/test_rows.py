from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from corpora import make_text, prepare_config, run_stages, write_documents
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preprocessing import columns
from preprocessing.arrangement import IGNORED, Shape, arrange, join
from preprocessing.corruption import Corrupted, Sequences, Side, Targets, WholeWordConfig
from preprocessing.rows import RowSet
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
        sequences = read.sequences
        for name, values in (
            ("ids", sequences.tokens),
            ("sequences", sequences.ids),
            ("lengths", sequences.lengths),
            ("first_lengths", sequences.first_lengths),
            ("labels", sequences.labels),
        ):
            assert values.tolist() == [v for row in order for v in expected[row][name]]
        assert read.row_of.tolist() == [
            place for place, row in enumerate(order) for _ in expected[row]["lengths"]
        ]
        one = rows.read(copy, np.array([count - 1]))
        assert one.sequences.tokens.tolist() == expected[-1]["ids"]


@given(choice=st.lists(st.integers(0, 30), min_size=1, max_size=6), epoch=st.integers(0, 5))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_a_row_is_the_same_in_any_micro_batch(
    prepared: Preparation, mode: str, choice: list[int], epoch: int
) -> None:
    rows = RowSet(prepared.examples_directory(mode), "train", seed=1)
    config = prepared.examples[mode].corruption
    together = rows.arrays(config, np.array(choice), epoch=epoch)
    length, most = rows.shape.length, rows.shape.max_targets["masked_lm"]
    for place, row in enumerate(choice):
        alone = rows.arrays(config, np.array([row]), epoch=epoch)
        for name in ("ids", "sequence_ids", "positions", "segment_ids"):
            assert (getattr(together, name)[place] == getattr(alone, name)[0]).all()
        for name, own_targets in alone.targets.items():
            indices, labels = own_targets.indices, own_targets.labels
            every, every_label = together.targets[name].indices, together.targets[name].labels
            own = (every // length == place) & (every_label != IGNORED)
            assert (every[own] - place * length).tolist() == indices[labels != IGNORED].tolist()
            assert every_label[own].tolist() == labels[labels != IGNORED].tolist()
    assert together.targets["masked_lm"].indices.shape == (len(choice) * most,)


def test_joined_micro_batches_are_one(prepared: Preparation) -> None:
    rows = RowSet(prepared.examples_directory("dynamic"), "train", seed=1)
    config = prepared.examples["dynamic"].corruption
    parts = [rows.arrays(config, np.array(own), epoch=1) for own in ([3, 4], [9], [20, 21, 22])]
    whole = rows.arrays(config, np.array([3, 4, 9, 20, 21, 22]), epoch=1)
    joined = join(parts)
    assert (joined.ids == whole.ids).all()
    assert (joined.positions == whole.positions).all()
    for name, targets in whole.targets.items():
        indices, labels = targets.indices, targets.labels
        got, got_labels = joined.targets[name].indices, joined.targets[name].labels
        assert got.shape == indices.shape
        assert got[got_labels >= 0].tolist() == indices[labels >= 0].tolist()
        assert got_labels[got_labels >= 0].tolist() == labels[labels >= 0].tolist()


def test_arrange_by_hand() -> None:
    """Two packed sequences with padding, and one alone; shapes are static."""
    sequences = Sequences(
        tokens=np.array([2, 4, 3, 8, 3, 2, 4, 3, 2, 5, 4, 3]),
        offsets=np.array([0, 5, 8, 12]),
        ids=np.array([70, 93, 94], np.uint64),
        first_lengths=np.array([3, 3, 4]),
        labels=np.array([1, 0, 0]),
        marks=np.zeros(0, np.uint8),
    )
    asked = Targets(np.array([1, 6, 10]), np.array([7, 9, 6]), {"left_place": np.array([0, 5, 9])})
    corrupted = Corrupted(sequences, {"masked_lm": asked}, {"ranks": np.arange(12)})
    shape = Shape(9, {"masked_lm": 2}, max_sequences=2, label="next_sentence")
    arrays = arrange(corrupted, np.array([0, 0, 1]), 2, shape)
    assert arrays.ids.tolist() == [[2, 4, 3, 8, 3, 2, 4, 3, 0], [2, 5, 4, 3] + [0] * 5]
    assert arrays.sequence_ids.tolist() == [[1, 1, 1, 1, 1, 2, 2, 2, 0], [1] * 4 + [0] * 5]
    assert arrays.positions.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 0], [0, 1, 2, 3] + [0] * 5]
    assert arrays.segment_ids.tolist() == [[0, 0, 0, 1, 1, 0, 0, 0, 0], [0] * 9]
    assert arrays.channels["ranks"].tolist() == [[*range(8), 0], [*range(8, 12)] + [0] * 5]
    targets = arrays.targets["masked_lm"]
    assert targets.indices.tolist() == [1, 6, 11, 0]
    assert targets.labels.tolist() == [7, 9, 6, IGNORED]
    assert targets.extra["left_place"].tolist() == [0, 5, 10, 0]
    labels = arrays.targets["next_sentence"]
    assert labels.indices.tolist() == [0, 5, 9, 0]
    assert labels.labels.tolist() == [1, 0, 0, IGNORED]


def test_channels_replace_positions_and_segments_and_decoders_have_rows_of_their_own() -> None:
    sequences = Sequences(
        tokens=np.array([5, 6, 7, 8]),
        offsets=np.array([0, 3, 4]),
        ids=np.array([1, 2], np.uint64),
        first_lengths=np.array([3, 1]),
        labels=np.array([-1, -1]),
        marks=np.zeros(0, np.uint8),
    )
    corrupted = Corrupted(
        sequences,
        {"denoising": Targets(np.array([0, 1, 2]), np.array([9, 1, 8]), of_decoder=True)},
        {"positions": np.array([0, 2, 5, 1]), "segment_ids": np.array([4, 4, 5, 4])},
        Side(np.array([0, 9, 0]), np.array([0, 2, 3])),
    )
    shape = Shape(5, {"denoising": 4}, max_sequences=2, decoder_length=4)
    arrays = arrange(corrupted, np.array([0, 0]), 1, shape)
    assert arrays.positions.tolist() == [[0, 2, 5, 1, 0]]
    assert arrays.segment_ids.tolist() == [[4, 4, 5, 4, 0]]
    assert arrays.channels == {}
    assert arrays.decoder is not None
    assert arrays.decoder.ids.tolist() == [[0, 9, 0, 0]]
    assert arrays.decoder.sequence_ids.tolist() == [[1, 1, 2, 0]]
    assert arrays.targets["denoising"].indices.tolist() == [0, 1, 2, 0]
    twice = join([arrays, arrays])
    assert twice.targets["denoising"].indices.tolist() == [0, 1, 2, 0, 4, 5, 6, 4]
    assert set(arrays.named()) >= {"decoder/ids", "decoder_targets/denoising/labels"}


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (Shape(3, {"masked_lm": 2}, 1), "a row of 4 tokens does not fit 3"),
        (Shape(4, {"masked_lm": 1}, 1), "2 targets, where there is room for 1"),
    ],
)
def test_what_does_not_fit_its_shape_is_refused(shape: Shape, message: str) -> None:
    sequences = Sequences(
        tokens=np.array([5, 6, 7, 8]),
        offsets=np.array([0, 4]),
        ids=np.array([1], np.uint64),
        first_lengths=np.array([4]),
        labels=np.array([-1]),
        marks=np.zeros(0, np.uint8),
    )
    corrupted = Corrupted(sequences, {"masked_lm": Targets(np.array([0, 1]), np.array([5, 6]))})
    with pytest.raises(ValueError, match=message):
        arrange(corrupted, np.array([0]), 1, shape)


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
    rows = RowSet(copy, "train", seed=1)
    with pytest.raises(InputError, match=r"part-00001\.arrow: not a whole Arrow file .* delete it"):
        rows.read(1, np.arange(rows.num_rows[1]))
    whole = (copy / "train" / "copy-000" / "part-00001.arrow").read_bytes()
    (copy / "train" / "copy-001" / "part-00001.arrow").write_bytes(whole)
    with pytest.raises(InputError, match=r"part-00001\.arrow: not of the \d+ bytes that the"):
        rows.read(1, np.arange(rows.num_rows[1]))


def test_rows_are_the_same_however_few_shards_are_kept_open(
    prepared: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = prepared.examples_directory("static")
    expected = stored(directory, "train/copy-000")
    monkeypatch.setattr(columns, "MAX_OPEN", 2)
    rows = RowSet(directory, "train", seed=1)
    assert len(rows.manifest.of("train/copy-000")) >= 3
    chooser = np.random.default_rng(0)
    for size in (1, 2, 5, len(expected), 1, 3, 2, len(expected), 7, 1):
        wanted = chooser.integers(0, len(expected), size)
        ids = rows.read(0, wanted).sequences.ids
        assert ids.tolist() == [one for row in wanted for one in expected[row]["sequences"]]


def test_rows_without_marks_are_refused_to_who_needs_them(prepared: Preparation) -> None:
    rows = RowSet(prepared.examples_directory("dynamic"), "train", seed=1)
    with pytest.raises(InputError, match=r"corruption 'whole_word' must know of tokens"):
        rows.arrays(WholeWordConfig(kind="whole_word"), np.arange(3), epoch=0)
