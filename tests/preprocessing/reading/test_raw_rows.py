import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_cases import records, texts

from preprocessing.reading import base
from preprocessing.reading.base import Reject
from preprocessing.reading.raw_rows import raw_rows
from preprocessing.reading.settings import ReadingConfig
from preprocessing.storage import InputError

FIELDS = st.text(st.sampled_from(list('a,"\n\r;é ')), max_size=6)
TABLES = st.lists(st.lists(FIELDS, min_size=2, max_size=3), max_size=6)
SMALL = ReadingConfig(form="csv", max_document_bytes=1024)


def in_blocks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[place : place + size] for place in range(0, len(data), size))


def written(table: list[list[str]], delimiter: str, line_end: str, quoting: int) -> str:
    sink = io.StringIO(newline="")
    csv.writer(
        sink,
        delimiter=delimiter,
        lineterminator=line_end,
        quoting=quoting,  # type: ignore[arg-type]
    ).writerows(table)
    return sink.getvalue()


@given(
    table=TABLES,
    delimiter=st.sampled_from([",", ";", "é"]),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    size=st.integers(1, 30),
)
@settings(max_examples=300, deadline=None)
def test_raw_rows_are_those_that_the_csv_module_reads(
    table: list[list[str]], delimiter: str, line_end: str, quoting: int, size: int
) -> None:
    text = written(table, delimiter, line_end, quoting)
    reading = ReadingConfig(form="csv", delimiter=delimiter)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "BUFFER_BYTES", 1)
        found = list(raw_rows(in_blocks(text.encode(), size), 0, reading))
    rows, place = [], 0
    for row in found:
        assert not isinstance(row, Reject)
        assert row[0] == place
        place += len(row[1])
        rows += list(csv.reader([row[1].decode()], delimiter=delimiter, strict=True))
    assert place == len(text.encode())
    assert rows == table or quoting == csv.QUOTE_MINIMAL  # which leaves line ends unquoted
    assert rows == list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))


@given(data=st.text(st.sampled_from(list('a,"\n\r')), max_size=40), size=st.integers(1, 9))
@settings(max_examples=500, deadline=None)
def test_no_byte_is_lost_without_a_reject_that_counts_it(data: str, size: int) -> None:
    raw = data.encode()
    for reading in (SMALL, ReadingConfig(form="csv")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(base, "BUFFER_BYTES", 1)
            found = list(raw_rows(in_blocks(raw, size), 0, reading))
        assert found == list(raw_rows(iter([raw]), 0, reading))
        place = 0
        for row in found:
            if isinstance(row, Reject):
                assert row.offset == place
                place += int(row.detail.split(": lost with it are ")[1].split()[0])
            else:
                assert row == (place, raw[place : place + len(row[1])])
                place += len(row[1])
                assert len(list(csv.reader([row[1].decode()], strict=True))) == 1
        assert place == len(raw)


@given(
    parts=st.lists(st.sampled_from(["1,", '"', '""', "\n", "\r\n", "x" * 700, ',"a', 'b"\n']),
                   max_size=25),
    sizes=st.tuples(st.integers(1, 9), st.integers(500, 3000)),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_what_is_rejected_does_not_depend_on_blocks(
    parts: list[str], sizes: tuple[int, int]
) -> None:
    data = "".join(parts).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "BUFFER_BYTES", 1)
        found = [list(raw_rows(in_blocks(data, size), 0, SMALL)) for size in sizes]
    assert found[0] == found[1] == list(raw_rows(iter([data]), 0, SMALL))


def test_the_reject_of_an_open_quote_says_how_much_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,text\n1,"never closed\n' + "2,gone\n" * 48)
    ((offset, reason, detail),) = records(path, form="csv")
    assert (offset, reason) == (8, "invalid_csv")
    assert "an open quote: lost with it are 352 bytes, 49 line ends" in detail


@pytest.mark.parametrize(
    ("form", "data"),
    [
        ("csv", 'text\n"' + "he said\n" * 300 + '"\n'),
        ("json", '["' + "x" * 2100 + '"]'),
        ("jsonl", '"' + "x" * 2100 + '"'),
        ("wikiextractor", "<doc >\n" + "word\n" * 500 + "</doc>"),
    ],
)
def test_records_over_twice_the_limit_are_told_to_raise_it(
    tmp_path: Path, form: str, data: str
) -> None:
    path = tmp_path / "a"
    path.write_text(data)
    for oversized in ("reject", "split"):
        rows = records(path, form=form, max_document_bytes=1024, oversized=oversized)
        ((_, reason, detail),) = rows
        assert reason == "oversized"
        assert "2048 bytes, twice max_document_bytes (1024)" in detail
        assert "oversized: split" not in detail


@pytest.mark.parametrize("encoding", ["utf-16", "UTF32"])
def test_bytes_of_no_known_order_are_refused_with_their_file(tmp_path: Path, encoding: str) -> None:
    name = "utf-16" if encoding == "utf-16" else "utf-32"
    path = tmp_path / "marked.txt"
    path.write_bytes("é\n".encode(name))
    assert texts(path, encoding=encoding) == ["é"]
    path.write_bytes(b"")
    assert texts(path, encoding=encoding) == []
    bare = tmp_path / "bare.txt"
    bare.write_bytes("é\n".encode(f"{name}-le"))
    with pytest.raises(InputError, match=rf"bare\.txt: .*encoding: {name}-le .* or {name}-be"):
        records(bare, encoding=encoding)
