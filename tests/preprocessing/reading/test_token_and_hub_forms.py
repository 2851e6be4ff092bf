import json
import struct
from pathlib import Path

import datasets
import numpy as np
import pytest
from reading_cases import outline, rows_of, whole
from tokenizers import Tokenizer, models, pre_tokenizers

from preprocessing.reading import hub
from preprocessing.reading.hub import list_datasets
from preprocessing.reading.settings import ReadingConfig
from preprocessing.reading.sources import Slice, split
from preprocessing.storage import InputError

WORDS = ["[PAD]", "[SEP]", "one", "two", "three", "four"]


def tokenizer_file(folder: Path) -> Path:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "[PAD]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["[PAD]", "[SEP]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def write_megatron(folder: Path, sequences: list[list[int]], borders: list[int]) -> Path:
    ids = [np.array(sequence, "<u2") for sequence in sequences]
    lengths = np.array([len(one) for one in ids], "<i4")
    places = np.cumsum([0, *(one.nbytes for one in ids)])[:-1].astype("<i8")
    (folder / "a.bin").write_bytes(b"".join(one.tobytes() for one in ids))
    (folder / "a.idx").write_bytes(
        b"MMIDIDX\x00\x00"
        + struct.pack("<QBQQ", 1, 8, len(ids), len(borders))
        + lengths.tobytes()
        + places.tobytes()
        + np.array(borders, "<i8").tobytes()
    )
    return folder / "a.bin"


def test_megatron_ids_become_the_text_of_their_documents(tmp_path: Path) -> None:
    path = write_megatron(tmp_path, [[2, 3], [4, 1], [], [5, 2, 1]], [0, 2, 3, 4])
    reading = {"form": "megatron", "megatron_tokenizer": tokenizer_file(tmp_path)}
    piece = whole(path)
    expected = [(0, "one two three"), (8, "empty_text"), (8, "four one")]
    assert sorted(outline(rows_of(piece, **reading))) == sorted(expected)
    for cut in range(piece.stop + 1):
        halves = [Slice(piece.source, 0, cut), Slice(piece.source, cut, piece.stop)]
        found = [row for half in halves for row in outline(rows_of(half, **reading))]
        assert sorted(found) == sorted(expected), cut
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    found = outline(rows_of(whole(path), **reading))
    assert (8, "damaged_archive") in found
    assert (0, "one two three") in found


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (None, r"a\.idx: cannot be read"),
        (b"no index", r"a\.idx: is no index"),
        (b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 2, 8, 0, 1), "version 2"),
        (b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, 9, 1), "ends too early"),
    ],
)
def test_megatron_without_a_good_index_is_refused(
    tmp_path: Path, index: bytes | None, message: str
) -> None:
    path = write_megatron(tmp_path, [[2]], [0, 1])
    (tmp_path / "a.idx").unlink()
    if index is not None:
        (tmp_path / "a.idx").write_bytes(index)
    with pytest.raises(InputError, match=message):
        rows_of(whole(path), form="megatron", megatron_tokenizer=tokenizer_file(tmp_path))


def test_megatron_without_its_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds token ids, no text: give megatron_tokenizer"):
        ReadingConfig(form="megatron")
    path = write_megatron(tmp_path, [[2]], [0, 1])
    with pytest.raises(InputError, match=r"is no tokenizer\.json"):
        rows_of(whole(path), form="megatron", megatron_tokenizer=tmp_path / "no")


def test_a_folder_of_the_datasets_library_is_read_without_it(tmp_path: Path) -> None:
    rows = [{"text": f"row {number}", "lang": "en"} for number in range(500)]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "one"), num_shards=3)
    reading = ReadingConfig(form="datasets")
    listing = list_datasets([str(tmp_path / "one")], reading)
    assert len(listing.sources) == 3
    found = [
        text
        for source in listing.sources
        for _, text in outline(rows_of(Slice(source, 0, source.size), form="datasets"))
    ]
    assert found == [row["text"] for row in rows]
    both = datasets.DatasetDict(
        {name: datasets.Dataset.from_list(rows[:9]) for name in ("train", "test")}
    )
    both.save_to_disk(str(tmp_path / "two"))
    with pytest.raises(InputError, match="choose one of its splits by dataset_split: train, test"):
        list_datasets([str(tmp_path / "two")], reading)
    (source,) = list_datasets(
        [str(tmp_path / "two")], ReadingConfig(form="datasets", dataset_split="test")
    ).sources
    assert "/test/" in source.url


def test_a_dataset_is_streamed_by_its_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library takes a folder for a dataset of the hub, which none of the tests can reach."""
    monkeypatch.setattr(hub, "_folder", lambda folder, reading: hub._hub(str(folder), reading))
    monkeypatch.setattr(hub, "_commit", lambda name, reading: "0123abc")
    for number in range(3):
        lines = [json.dumps({"text": f"{number}-{i}" if i else None}) for i in range(300)]
        (tmp_path / f"part-{number}.jsonl").write_text("\n".join(lines))
    reading = ReadingConfig(form="datasets")
    listing = list_datasets([str(tmp_path)], reading)
    assert [source.mark for source in listing.sources] == [f"0123abc/{i}/3" for i in range(3)]
    assert len(split(listing.sources, reading, 1000)) >= 1
    found = [
        row
        for source in listing.sources
        for row in outline(rows_of(Slice(source, 0, 0), form="datasets"))
    ]
    assert sorted(text for _, text in found if text != "missing_text") == sorted(
        f"{number}-{i}" for number in range(3) for i in range(1, 300)
    )
    assert [text for _, text in found].count("missing_text") == 3


def test_a_folder_of_other_files_is_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}')
    with pytest.raises(InputError, match="save_to_disk did not write this folder; give its files"):
        list_datasets([str(tmp_path)], ReadingConfig(form="datasets"))


def test_an_unknown_dataset_is_an_input_error() -> None:
    with pytest.raises(InputError, match="neither a folder that save_to_disk wrote nor a dataset"):
        list_datasets(["nobody/nothing"], ReadingConfig(form="datasets"))
