import bz2
import gzip
import json
import lzma
import random
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_cases import outline, reasons, records, texts, whole
from test_lines import RAW_TEXT

from preprocessing.reading import archives
from preprocessing.reading.base import Documents
from preprocessing.reading.readers import read
from preprocessing.reading.settings import ReadingConfig
from preprocessing.storage import InputError

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "zst": zstandard.ZstdCompressor().compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}


# -- archives ------------------------------------------------------------------------------------


@given(data=RAW_TEXT, damage=st.integers(0, 300), step=st.integers(1, 9))
@settings(max_examples=100, deadline=None)
@pytest.mark.parametrize("suffix", COMPRESS)
def test_archives_hold_what_their_content_holds_and_damage_costs_only_the_rest(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: bytes, damage: int, step: int
) -> None:
    base = tmp_path_factory.getbasetemp()
    half = len(data) // 2
    first, second = COMPRESS[suffix](data[:half]), COMPRESS[suffix](data[half:])
    cut = min(damage, len(first + second) - 1)
    plain, archive = base / "plain.txt", base / f"plain.txt.{suffix}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archives, "STEP_BYTES", step)
        plain.write_bytes(data)
        archive.write_bytes(first + second)
        expected = outline(records(plain))
        assert outline(records(archive)) == expected
        archive.write_bytes((first + second)[:cut])
        found = outline(records(archive))
    if cut == len(first):  # what is left is a whole archive
        plain.write_bytes(data[:half])
        assert found == outline(records(plain))
    else:
        damaged = [row for row in found if row[1] == "damaged_archive"]
        kept = [row for row in found if row[1] != "damaged_archive"]
        assert len(damaged) == 1
        assert kept == expected[: len(kept)]


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_damaged_archive_keeps_what_came_before(tmp_path: Path, suffix: str) -> None:
    rng = random.Random(0)
    documents = [f"document {number} {rng.random()}" for number in range(40_000)]
    members = [documents[:20_000], documents[20_000:]]
    parts = [COMPRESS[suffix](("\n\n".join(part) + "\n\n").encode()) for part in members]
    for begin in (len(parts[0]) + 14, len(parts[0]) + len(parts[1]) // 2):
        packed = bytearray(b"".join(parts))
        packed[begin : begin + 64] = b"\xff" * 64
        path = tmp_path / f"a.txt.{suffix}"
        path.write_bytes(packed)
        *kept, last = records(path)
        assert last[1] == "damaged_archive"
        assert "only what ended before is kept" in last[2]
        place = re.search(r"byte (\d+) of the file", last[2])
        assert place
        assert abs(int(place[1]) - begin) < 1 << 17
        assert [text for _, _, text in kept[:20_000]] == documents[:20_000]
        if suffix == "gz":
            assert len(kept) > 29_000 or begin < len(parts[0]) + 15


# -- columns -------------------------------------------------------------------------------------


def test_parquet_rows_are_documents_or_rejects(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    values = [b"one\r\n", None, b" ", b"\xff", b"two"]
    column = pa.array(values, pa.binary())
    strings = pa.StringArray.from_buffers(len(column), *column.buffers()[1:], column.buffers()[0])
    expected = [
        (0, "one\n"),
        (1, "missing_text"),
        (2, "empty_text"),
        (3, "invalid_bytes"),
        (4, "two"),
    ]
    for array in (column, strings, column.cast(pa.large_binary())):
        pq.write_table(pa.table({"body": array, "id": list(range(5))}), path)
        assert outline(records(path, form="parquet", text_field="body")) == expected
    pq.write_table(pa.table({"body": pa.array(["x", None, "x"]).dictionary_encode()}), path)
    found = outline(records(path, form="parquet", text_field="body"))
    assert found == [(0, "x"), (1, "missing_text"), (2, "x")]
    pq.write_table(pa.table({"body": pa.nulls(2)}), path)
    assert outline(records(path, form="parquet", text_field="body")) == [
        (0, "missing_text"),
        (1, "missing_text"),
    ]


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_wrong_column_is_named_with_the_right_ones(tmp_path: Path, form: str) -> None:
    path = tmp_path / "a"
    table = pa.table({"body": ["x"], "id": [1], "many": [["x"]]})
    if form == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(InputError, match="no column 'text'; there are: body, id, many"):
        records(path, form=form)
    with pytest.raises(InputError, match="column 'id' holds int64, not text"):
        records(path, form=form, text_field="id")
    with pytest.raises(InputError, match=r"column 'many' holds list<.*>, not text"):
        records(path, form=form, text_field="many")


def test_a_damaged_parquet_file_is_one_reject(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows = [f"row {number} " + "word " * 50 for number in range(4000)]
    pq.write_table(pa.table({"text": rows}), path, row_group_size=1000, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    data[len(data) * 5 // 8] ^= 0xFF
    path.write_bytes(data)
    *kept, last = records(path, form="parquet")
    assert last[1] == "damaged_archive"
    assert [text for _, _, text in kept] == rows[: len(kept)]
    assert len(kept) >= 2000
    path.write_bytes(data[:-9])
    assert reasons(records(path, form="parquet")) == [("damaged_archive", 0)]


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_arrow_batches_before_damage_are_kept(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.arrow"
    rows = [f"row {number} " + "word " * 50 for number in range(4000)]
    table = pa.table({"text": rows})
    new = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
    with new(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=1000)
    assert texts(path, form="arrow") == rows
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 5 // 8])
    *kept, last = records(path, form="arrow")
    assert last[:2] == (2000, "damaged_archive")
    assert [text for _, _, text in kept] == rows[:2000]
    path.write_bytes(data[:-5])
    *kept, last = records(path, form="arrow")[: 4001 if kind == "file" else None]
    if kind == "file":
        assert last[:2] == (4000, "damaged_archive")
    assert [text for _, _, text in [*kept, last]][:4000] == rows


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 2000), value=st.integers(0, 255), kind=st.sampled_from(["f", "s"]))
def test_no_damage_of_an_arrow_file_ends_the_process(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int, kind: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "b.arrow"
    table = pa.table({"text": ["one", "two", None, "four"] * 20, "id": list(range(80))})
    new = pa.ipc.new_file if kind == "f" else pa.ipc.new_stream
    with new(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=30)
    data = bytearray(path.read_bytes())
    data[place % len(data)] = value
    path.write_bytes(data)
    try:
        found = records(path, form="arrow")
    except InputError:
        return
    assert len(found) <= 82


# -- fields --------------------------------------------------------------------------------------


def labelled(path: Path, reading: ReadingConfig) -> list[tuple[str, object, object]]:
    rows: list[tuple[str, object, object]] = []
    for found in read(whole(path), reading):
        assert isinstance(found, Documents)
        none = [None] * len(found)
        rows += zip(
            found.texts.to_pylist(), found.languages or none, found.licences or none, strict=True
        )
    return rows


@pytest.mark.parametrize("form", ["jsonl", "json", "parquet", "arrow"])
def test_fields_are_found_in_objects_and_of_several_those_that_are_there(
    tmp_path: Path, form: str
) -> None:
    rows = [
        {"title": "T", "d": {"body": "one", "lang": "en"}, "terms": ["MIT", "BSD"]},
        {"title": None, "d": {"body": "two", "lang": None}, "terms": None},
        {"title": "U", "d": {"body": None, "lang": "de"}, "terms": []},
    ]
    path = tmp_path / "a"
    table = pa.Table.from_pylist(rows)
    match form:
        case "jsonl":
            path.write_text("\n".join(map(json.dumps, rows)))
        case "json":
            path.write_text(json.dumps(rows))
        case "parquet":
            pq.write_table(table, path)
        case "arrow":
            with pa.ipc.new_stream(path, table.schema) as writer:
                writer.write_table(table)
    reading = ReadingConfig(
        form=form,  # type: ignore[arg-type]
        text_field=("title", "d.body"),
        language_field="d.lang",
        licence_field="terms",
    )
    assert labelled(path, reading) == [
        ("T\none", "en", '["MIT", "BSD"]'),
        ("two", None, None),
        ("U", "de", "[]"),
    ]


def test_a_csv_row_has_its_language_and_licence(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id;lang;body;terms\n1;en;"one; two";MIT\n2;;three;\n')
    reading = ReadingConfig(
        form="csv",
        text_field="body",
        language_field="lang",
        licence_field="terms",
        delimiter=";",
    )
    assert labelled(path, reading) == [("one; two", "en", "MIT"), ("three", None, None)]


def test_a_key_with_a_dot_goes_before_a_path(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a.b": "one", "a": {"b": "two"}}\n{"a": [{"b": "x"}, {"b": "three"}]}')
    assert outline(records(path, form="jsonl", text_field="a.b")) == [
        (0, "one"),
        (34, "missing_text"),
    ]
    assert texts(path, form="jsonl", text_field=("a.b", "a.1.b")) == ["one", "three"]


# -- bounded memory ------------------------------------------------------------------------------


def test_a_large_file_passes_in_small_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    rng = random.Random(0)
    with zstandard.open(path, "wb") as file:
        for _ in range(40_000):
            file.write(json.dumps({"text": rng.randbytes(500).hex()}).encode() + b"\n")
    count = 0
    tracemalloc.start()
    for found in read(whole(path), ReadingConfig(form="jsonl")):
        assert isinstance(found, Documents)
        count += len(found)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 40_000
    assert peak < 8 << 20  # of 40 MB; 5 MiB was measured


@pytest.mark.parametrize("form", ["jsonl", "json", "csv", "wikiextractor", "file", "text", "lines"])
@pytest.mark.parametrize("oversized", ["reject", "split"])
def test_a_record_of_any_size_passes_in_small_memory(
    tmp_path: Path, form: str, oversized: str
) -> None:
    path = tmp_path / "a.gz"
    before, after = {
        "jsonl": (b'{"text": "', b'"}\n{"text": "next"}\n'),
        "json": (b'[{"text": "', b'"}, {"text": "next"}]'),
        "csv": (b'text,id\n"', b'",1\nnext,2\n'),
        "wikiextractor": (b'<doc id="1">\n', b'\n</doc>\n<doc id="2">\nnext\n</doc>\n'),
        "file": (b"", b""),
        "text": (b"", b"\n\nnext\n"),
        "lines": (b"", b"\nnext\n"),
    }[form]
    with gzip.open(path, "wb", 1) as file:
        file.write(before)
        for _ in range(64):
            file.write(b"word \\\\ " * (1 << 17))
        file.write(after)
    reading = ReadingConfig(
        form=form,  # type: ignore[arg-type]
        max_document_bytes=1 << 21,
        oversized=oversized,  # type: ignore[arg-type]
    )
    kinds: list[str] = []
    tracemalloc.start()
    for found in read(whole(path), reading):
        if isinstance(found, Documents):
            kinds += [text[:4] for text in found.texts.to_pylist()]
        else:
            kinds.append(getattr(found, "reason", "split"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 << 20  # of 64 MiB
    own = oversized == "split" and form in ("text", "lines", "file")
    first = ["split", *["word"] * 32] if own else ["oversized"]
    assert kinds == (first if form == "file" else [*first, "next"])
