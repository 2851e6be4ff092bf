import gzip
import itertools
import json
import random
import re
import tracemalloc
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing import readers, sources
from preprocessing.readers import (
    Document,
    Form,
    Reject,
    Slice,
    Source,
    digest_source,
    list_sources,
    read,
    split,
)
from preprocessing.storage import InputError

ODD_BYTES = [b"\xef\xbb\xbf", b"\xff", b"\x0b", b"\xe2\x80\xa8", b"\xc2", b"\x1c", b"\xe3\x80\x80"]
LINE_ENDS = [b"\n", b"\n", b"\r\n", b"\r", b"\n\n"]
RAW_TEXT = st.lists(
    st.sampled_from([b"one", b"b c", b"\xc3\xa9", b" ", b"\t", *LINE_ENDS, *ODD_BYTES]), max_size=25
).map(b"".join)


def whole(path: Path) -> Slice:
    (source,) = list_sources([str(path)])
    return Slice(source, 0, source.size)


def records(path: Path, form: Form = "text", field: str = "text") -> list[Document | Reject]:
    return list(read(whole(path), form, field))


def texts(path: Path, form: Form = "text", field: str = "text") -> list[str]:
    found = records(path, form, field)
    assert all(isinstance(record, Document) for record in found)
    return [record.text for record in found if isinstance(record, Document)]


def reasons(found: list[Document | Reject]) -> list[tuple[str, int]]:
    return [(record.reason, record.offset) for record in found if isinstance(record, Reject)]


def outline(found: list[Document | Reject]) -> list[tuple[int, str]]:
    return [
        (record.offset, record.text if isinstance(record, Document) else record.reason)
        for record in found
    ]


def reference(data: bytes, form: Form) -> list[str]:
    """What a reader that may take the whole file into memory would find."""
    text = data.decode(errors="surrogateescape").removeprefix("\ufeff")
    lines = re.split(r"\r\n|\r|\n", text)
    if form == "lines":
        return [line for line in lines if line and not line.isspace()]
    joined = "\n".join("" if line.isspace() else line for line in lines)
    return [document for document in re.split(r"\n\n+", joined.strip("\n")) if document]


# -- which files ---------------------------------------------------------------------------------


def test_globs_are_expanded_sorted_and_each_file_comes_once(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.md"):
        (tmp_path / name).write_text(name)
    found = list_sources([f"{tmp_path}/*.txt", f"{tmp_path}/a.txt", f"{tmp_path}/c.md"])
    assert [Path(source.url).name for source in found] == ["a.txt", "b.txt", "c.md"]
    assert [source.size for source in found] == [5, 5, 4]
    assert found[0].url == str(tmp_path / "a.txt")


def test_a_name_with_glob_characters_is_taken_literally_where_it_exists(tmp_path: Path) -> None:
    (tmp_path / "part[1].txt").write_text("x")
    assert [source.size for source in list_sources([f"{tmp_path}/part[1].txt"])] == [1]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("none.txt", "no such file"),
        ("*.txt", "no such file"),
        ("", r"is a directory.*\*\.txt"),
        ("broken.link", "no such file"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, pattern: str, message: str) -> None:
    (tmp_path / "broken.link").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=message):
        list_sources([str(tmp_path / pattern)])


def test_an_unknown_protocol_is_an_input_error() -> None:
    with pytest.raises(InputError, match="nosuch://bucket/a"):
        list_sources(["nosuch://bucket/a"])


def test_a_broken_link_that_a_glob_finds_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=r"\*\.txt: cannot be read: No such file"):
        list_sources([f"{tmp_path}/*.txt"])


def test_any_fsspec_url_is_read() -> None:
    system = fsspec.filesystem("memory")
    system.pipe("/readers/a.txt", b"one\n\ntwo")
    (source,) = list_sources(["memory://readers/*.txt"])
    assert source == Source("memory:///readers/a.txt", 8)
    assert [record.offset for record in read(Slice(source, 0, 8), "text", "")] == [0, 5]
    assert [record.offset for record in read(Slice(source, 2, 8), "text", "")] == [5]


def test_a_file_that_changed_since_it_was_listed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    piece = whole(path)
    path.write_text("one and more")
    with pytest.raises(InputError, match=r"had 3 bytes.*has 12 now"):
        list(read(piece, "text", ""))
    path.unlink()
    with pytest.raises(InputError, match=r"a\.txt: cannot be read"):
        list(read(piece, "text", ""))


def test_a_digest_depends_on_the_bytes_alone(tmp_path: Path) -> None:
    for name, data in {"a": b"x" * 3_000_000, "b": b"x" * 3_000_000, "c": b"y"}.items():
        (tmp_path / name).write_bytes(data)
    first, second, third = map(digest_source, list_sources([f"{tmp_path}/*"]))
    assert first == second != third
    assert len(first) == 32


def test_the_plan_cuts_large_files_and_groups_small_ones() -> None:
    large, packed = Source("a.txt", 250), Source("b.txt.gz", 250)
    small = [Source(f"{name}.txt", 40) for name in "cde"]
    assert split([large, packed, *small], "text", 100) == [
        (Slice(large, 0, 125),),
        (Slice(large, 125, 250),),
        (Slice(packed, 0, 250),),
        (Slice(small[0], 0, 40), Slice(small[1], 0, 40)),
        (Slice(small[2], 0, 40),),
    ]
    assert split([large], "parquet", 100) == [(Slice(large, 0, 250),)]
    assert split([], "text", 100) == []
    with pytest.raises(ValueError, match="target_bytes"):
        split([large], "text", 0)


# -- records -------------------------------------------------------------------------------------


def test_documents_are_separated_by_blank_lines_of_any_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf\r\nA\r\nB\r \t\r\n\n  C\n\xe3\x80\x80\nD")
    assert records(path) == [
        Document("A\nB", str(path), 5),
        Document("  C", str(path), 15),
        Document("D", str(path), 23),
    ]


def test_blank_means_what_python_calls_white_space() -> None:
    for code in range(0x110000):
        if not 0xD800 <= code < 0xE000:
            data = chr(code).encode()
            assert (readers._BLANK.match(data) is not None) == chr(code).isspace()


@pytest.mark.parametrize("form", ["text", "lines"])
@settings(max_examples=400, deadline=None)
@given(
    data=RAW_TEXT,
    cuts=st.lists(st.integers(0, 60), max_size=4),
    block_bytes=st.integers(1, 7),
)
def test_any_cutting_gives_the_same_records(
    tmp_path_factory: pytest.TempPathFactory,
    form: Form,
    data: bytes,
    cuts: list[int],
    block_bytes: int,
) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.txt"
    path.write_bytes(data)
    together = records(path, form)
    source = whole(path).source
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "BLOCK_BYTES", block_bytes)
        apart = [
            record
            for start, stop in itertools.pairwise(bounds)
            for record in read(Slice(source, start, stop), form, "")
        ]
    assert apart == together
    expected = reference(data, form)
    assert len(together) == len(expected)
    for record, text in zip(together, expected, strict=True):
        valid = not re.search("[\ud800-\udfff]", text)
        assert record.text == text if isinstance(record, Document) else not valid


@pytest.mark.parametrize("form", ["text", "lines"])
def test_every_cut_is_right_around_every_mix_of_line_ends(
    tmp_path: Path, form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"".join(map(bytes, itertools.product(b"a\n\r ", repeat=4)))
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    source = whole(path).source
    together = outline(records(path, form))
    monkeypatch.setattr(readers, "BLOCK_BYTES", 64)
    for cut in range(len(data) + 1):
        before = read(Slice(source, 0, cut), form, "")
        after = read(Slice(source, cut, len(data)), form, "")
        assert outline([*before, *after]) == together, cut


@given(data=RAW_TEXT, damage=st.integers(0, 200), step=st.integers(1, 9))
@settings(max_examples=150, deadline=None)
@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_archives_hold_what_their_content_holds_and_damage_costs_only_the_rest(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: bytes, damage: int, step: int
) -> None:
    base = tmp_path_factory.getbasetemp()
    compress = gzip.compress if suffix == "gz" else zstandard.ZstdCompressor().compress
    first, second = compress(data[: len(data) // 2]), compress(data[len(data) // 2 :])
    cut = min(damage, len(first + second) - 1)
    plain, archive = base / "plain.txt", base / f"plain.txt.{suffix}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "ARCHIVE_STEP_BYTES", step)
        plain.write_bytes(data)
        archive.write_bytes(first + second)
        expected = outline(records(plain))
        assert outline(records(archive)) == expected
        archive.write_bytes((first + second)[:cut])
        found = records(archive)
    if cut == len(first):  # what is left is a whole archive
        plain.write_bytes(data[: len(data) // 2])
        assert outline(found) == outline(records(plain))
    else:
        assert outline(found[:-1]) == expected[: len(found) - 1]
        assert [reason for reason, _ in reasons(found)][-1] == "damaged_archive"


def test_a_damaged_archive_keeps_what_came_before(tmp_path: Path) -> None:
    documents = [f"document {number} " + "word " * 40 for number in range(4000)]
    packed = bytearray(gzip.compress("\n\n".join(documents).encode()))
    packed[len(packed) // 2] ^= 0xFF
    path = tmp_path / "a.txt.gz"
    path.write_bytes(packed)
    *kept, last = records(path)
    assert isinstance(last, Reject)
    assert last.reason == "damaged_archive"
    assert "only what ended before is kept" in last.detail
    assert len(kept) > 500
    before = [record.text for record in kept[:500] if isinstance(record, Document)]
    assert before == documents[:500]


@pytest.mark.parametrize("data", [b"", b"\0\0\0", b"plain text"])
def test_what_is_no_archive_is_one_reject(tmp_path: Path, data: bytes) -> None:
    for name in ("a.gz", "a.zst"):
        (tmp_path / name).write_bytes(data)
        assert reasons(records(tmp_path / name)) == [("damaged_archive", 0)]


def test_zeros_after_the_last_member_are_padding(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"one\n") + gzip.compress(b"\ntwo") + bytes(5000))
    assert texts(path) == ["one", "two"]


def test_json_lines_are_documents_or_rejects_with_their_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [
        b'{"id": 1, "body": "a\\r\\nb"}',
        b"",
        b"{",
        b"[1]",
        b'{"id": 2}',
        b'{"body": null}',
        b'{"body": " \\n"}',
        b'{"body": "\\ud800"}',
        b'{"body": "\xff"}',
        b"[" * 100_000,
        b'{"body": ' + b"1" * 5000 + b"}",
        '{"body": "é\u2028\\ud83d\\ude00"}'.encode(),
    ]
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines))
    found = records(path, "jsonl", "body")
    assert [getattr(record, "text", None) or record.reason for record in found] == [
        "a\nb",
        "invalid_json",
        "invalid_json",
        "missing_text",
        "missing_text",
        "empty_text",
        "invalid_utf8",
        "invalid_utf8",
        "invalid_json",
        "invalid_json",
        "é\u2028😀",
    ]
    assert found[3].detail == "no 'body' among its keys: id"
    data = path.read_bytes()
    for record in found[1:]:
        assert data[record.offset - 1 : record.offset] == b"\n"


def test_parquet_rows_are_documents_or_rejects(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    values = [b"one\r\n", None, b" ", b"\xff", b"two"]
    column = pa.array(values, pa.binary())
    strings = pa.StringArray.from_buffers(len(column), *column.buffers()[1:], column.buffers()[0])
    for array in (column, strings):
        pq.write_table(pa.table({"body": array, "id": list(range(5))}), path)
        found = records(path, "parquet", "body")
        assert reasons(found) == [("missing_text", 1), ("empty_text", 2), ("invalid_utf8", 3)]
        assert found[0] == Document("one\n", str(path), 0)
        assert found[4] == Document("two", str(path), 4)
    pq.write_table(pa.table({"body": pa.array(["x", "x"]).dictionary_encode()}), path)
    assert texts(path, "parquet", "body") == ["x", "x"]


def test_a_wrong_parquet_column_is_named_with_the_right_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"body": ["x"], "id": [1]}), path)
    with pytest.raises(InputError, match="no column 'text'; there are: body, id"):
        records(path, "parquet")
    with pytest.raises(InputError, match="column 'id' holds int64, not text"):
        records(path, "parquet", "id")


def test_a_damaged_parquet_file_is_one_reject(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows = [f"row {number} " + "word " * 50 for number in range(4000)]
    pq.write_table(pa.table({"text": rows}), path, row_group_size=1000, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    data[len(data) * 5 // 8] ^= 0xFF
    path.write_bytes(data)
    *kept, last = records(path, "parquet")
    assert isinstance(last, Reject)
    assert last.reason == "damaged_archive"
    assert [record.text for record in kept if isinstance(record, Document)] == rows[: len(kept)]
    assert len(kept) >= 2000
    path.write_bytes(data[:-9])
    assert reasons(records(path, "parquet")) == [("damaged_archive", 0)]


# -- bounded memory ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "lines"])
def test_a_record_past_the_limit_is_skipped_without_being_held(
    tmp_path: Path, form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "MAX_RECORD_BYTES", 1 << 17)
    monkeypatch.setattr(readers, "BLOCK_BYTES", 1 << 14)
    monkeypatch.setattr(sources, "BLOCK_BYTES", 1 << 14)
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n\n" + b"x" * (1 << 23) + b"\n\ntwo\n")
    tracemalloc.start()
    found = records(path, form)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [getattr(record, "text", None) for record in found] == ["one", None, "two"]
    assert reasons(found) == [("too_long", 5)]
    assert found[2].offset == 5 + (1 << 23) + 2
    assert peak < 1 << 20  # 0.4 MiB was measured


def test_a_large_file_passes_in_small_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    rng = random.Random(0)
    with zstandard.open(path, "wb") as file:
        for _ in range(20_000):
            file.write(json.dumps({"text": rng.randbytes(500).hex()}).encode() + b"\n")
    tracemalloc.start()
    count = sum(isinstance(record, Document) for record in read(whole(path), "jsonl", "text"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 1 << 22  # of 20 MB; 0.5 MiB was measured
