import io
import itertools
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reading_cases import outline, records, rows_of, whole

from preprocessing.reading import base, lines, readers, sources
from preprocessing.reading.blanks import is_blank, is_blank_so_far
from preprocessing.reading.lines import Oversized, Range, Spans, line_start, scan
from preprocessing.reading.sources import Slice
from preprocessing.reading.splitting import pieces

ODD_BYTES = [b"\xef\xbb\xbf", b"\xff", b"\x0b", b"\xe2\x80\xa8", b"\xc2", b"\x1c", b"\xe3\x80\x80"]
LINE_ENDS = [b"\n", b"\n", b"\r\n", b"\r", b"\n\n"]
RAW_TEXT = st.lists(
    st.sampled_from([b"one", b"b c", b"\xc3\xa9", b" ", b"\t", *LINE_ENDS, *ODD_BYTES]), max_size=25
).map(b"".join)


def reference(data: bytes, form: str) -> list[str]:
    """What a reader that may take the whole file into memory would find."""
    text = data.decode(errors="surrogateescape").removeprefix("\ufeff")
    split = re.split(r"\r\n|\r|\n", text)
    if form == "lines":
        return [line for line in split if line and not line.isspace()]
    joined = "\n".join("" if line.isspace() else line for line in split)
    return [document for document in re.split(r"\n\n+", joined.strip("\n")) if document]


def small_blocks(patch: pytest.MonkeyPatch, size: int) -> None:
    patch.setattr(lines, "BUFFER_BYTES", size)
    patch.setattr(base, "BUFFER_BYTES", size)
    patch.setattr(readers, "read_blocks", lambda file: sources.read_blocks(file, size))


def test_blank_means_what_python_calls_white_space() -> None:
    for code in range(0x110000):
        if not 0xD800 <= code < 0xE000:
            data = chr(code).encode()
            assert is_blank(data) == chr(code).isspace()
            for end in range(1, len(data)):
                assert is_blank_so_far(data[:end]) or not is_blank(data)


def test_documents_are_separated_by_blank_lines_of_any_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf\r\nA\r\nB\r \t\r\n\n  C\n\xe3\x80\x80\nD")
    assert records(path) == [(5, "text", "A\nB"), (15, "text", "  C"), (23, "text", "D")]


@pytest.mark.parametrize("form", ["text", "lines"])
@settings(max_examples=400, deadline=None)
@given(
    data=RAW_TEXT,
    cuts=st.lists(st.integers(0, 60), max_size=4),
    block_bytes=st.integers(1, 7),
)
def test_any_cutting_gives_the_same_records(
    tmp_path_factory: pytest.TempPathFactory,
    form: str,
    data: bytes,
    cuts: list[int],
    block_bytes: int,
) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.txt"
    path.write_bytes(data)
    together = outline(records(path, form=form))
    source = whole(path).source
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    with pytest.MonkeyPatch.context() as patch:
        small_blocks(patch, block_bytes)
        apart = [
            row
            for start, stop in itertools.pairwise(bounds)
            for row in sorted(rows_of(Slice(source, start, stop), form=form))
        ]
    assert outline(apart) == together
    expected = reference(data, form)
    assert len(together) == len(expected)
    for (_, text), wanted in zip(together, expected, strict=True):
        valid = not re.search("[\ud800-\udfff]", wanted)
        assert text == (wanted if valid else "invalid_bytes")


@pytest.mark.parametrize("form", ["text", "lines"])
def test_every_cut_is_right_around_every_mix_of_line_ends(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"".join(map(bytes, itertools.product(b"a\n\r ", repeat=4)))
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    source = whole(path).source
    together = outline(records(path, form=form))
    small_blocks(monkeypatch, 64)
    for cut in range(len(data) + 1):
        before = rows_of(Slice(source, 0, cut), form=form)
        after = rows_of(Slice(source, cut, len(data)), form=form)
        assert outline([*before, *after]) == together, cut


def in_blocks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[i : i + size] for i in range(0, len(data), size))


def scanned(
    data: bytes, size: int, grouped: bool, split: bool, limit: int, cuts: list[int]
) -> list[tuple[int, bytes | None]]:
    """What the slices between some cuts find: ``(offset, bytes)``, None for what is too large."""
    found: list[tuple[int, bytes | None]] = []
    bounds = [0, *cuts, len(data)]
    for start, stop in itertools.pairwise(bounds):
        origin, in_text = anchored(data, start)
        wanted = Range(start, stop, origin, in_text)
        for one in scan(
            in_blocks(data[origin:], size), wanted, grouped=grouped, limit=limit, split=split
        ):
            if isinstance(one, Oversized):
                found.append((one.offset, None))
            else:
                assert isinstance(one, Spans)
                found += [
                    (one.offset + a, one.data[a:b])
                    for a, b in zip(one.starts.tolist(), one.ends.tolist(), strict=True)
                ]
    return found


def anchored(data: bytes, start: int) -> tuple[int, bool]:
    return line_start(io.BytesIO(data), start)


@settings(max_examples=1000, deadline=None)
@example([b"aabb bb abb \n", b"aabb "], True, True, 4, 1, [])
@example([b"\n    bb bb bb \n"], False, False, 4, 8, [2])  # begins behind where its line does
@given(
    parts=st.lists(
        st.sampled_from([b"a", b"bb ", b"\xc3\xa9", b" ", b"    ", b"\n", b"\r\n", b"\r", b"\n\n"]),
        max_size=40,
    ),
    grouped=st.booleans(),
    split=st.booleans(),
    limit=st.integers(4, 9),
    size=st.integers(1, 9),
    cuts=st.lists(st.integers(0, 90), max_size=3),
)
def test_records_past_the_limit_do_not_depend_on_blocks_and_cuts(
    parts: list[bytes], grouped: bool, split: bool, limit: int, size: int, cuts: list[int]
) -> None:
    data = b"".join(parts)
    with pytest.MonkeyPatch.context() as patch:
        together = scanned(data, len(data) or 1, grouped, split, limit, [])
        patch.setattr(lines, "BUFFER_BYTES", size)
        patch.setattr(base, "BUFFER_BYTES", size)
        borders = sorted(min(cut, len(data)) for cut in cuts)
        assert scanned(data, size, grouped, split, limit, borders) == together
    assert all(text is None or len(text) <= limit for _, text in together)
    offsets = [offset for offset, text in together if text is not None]
    assert offsets == sorted(set(offsets))
    for offset, text in together:
        if text is not None:
            assert data[offset : offset + len(text)] == text
    if split:  # nothing is lost
        kept = b"".join(text for _, text in together if text is not None)
        assert re.sub(rb"\s", b"", kept) == re.sub(rb"\s", b"", data)


@given(st.binary(max_size=60), st.integers(4, 20))
def test_pieces_are_the_document(data: bytes, limit: int) -> None:
    places = list(pieces(data, limit))
    assert b"".join(data[begin:end] for begin, end in places) == data
    assert all(0 < end - begin <= limit for begin, end in places) or not data


def test_pieces_end_at_line_ends_then_at_white_space_then_between_characters() -> None:
    def parts(text: str, limit: int) -> list[str]:
        data = text.encode()
        return [data[begin:end].decode() for begin, end in pieces(data, limit)]

    assert parts("one\ntwo three four\n", 12) == ["one\n", "two three ", "four\n"]
    assert parts("one two three", 6) == ["one ", "two ", "three"]
    assert parts("one\u3000two", 7) == ["one\u3000", "two"]
    assert parts("äöüä", 5) == ["äö", "üä"]
    assert parts("ab\r\ncdef", 5) == ["ab\r\n", "cdef"]
    assert parts("😀😀", 4) == ["😀", "😀"]


def test_a_slice_in_the_middle_of_an_endless_line_reads_no_further_than_itself() -> None:
    size = 1 << 16
    given: list[int] = []

    def endless() -> Iterator[bytes]:
        for number in range(1000):
            given.append(number)
            yield b"x" * size

    wanted = Range(5 * size, 8 * size, 4 * size, in_text=True)
    assert not list(scan(endless(), wanted, grouped=True, limit=1 << 20, split=False))
    assert len(given) <= 1 + base.BUFFER_BYTES // size


def test_gigabytes_of_white_space_and_of_text_pass_in_small_memory() -> None:
    block = b" " * (1 << 20)
    for data, expected in (
        (itertools.repeat(block, 30), []),
        (itertools.chain([b"one\n"], itertools.repeat(block, 30), [b"\ntwo"]), [0, 31457285]),
        (itertools.chain([b"one\n\n"], itertools.repeat(b"x" * (1 << 20), 30)), [0, 5]),
    ):
        tracemalloc.start()
        found = list(scan(data, Range(0, None, 0), grouped=True, limit=1 << 20, split=False))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        offsets = [
            [one.offset] if isinstance(one, Oversized) else (one.starts + one.offset).tolist()
            for one in found
        ]
        assert sorted(itertools.chain.from_iterable(offsets)) == expected
        assert peak < 12 << 20
