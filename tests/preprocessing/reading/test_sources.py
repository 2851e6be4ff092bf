import os
import stat
from pathlib import Path

import fsspec
import pytest
from reading_cases import rows_of, whole

from preprocessing.reading.listing import list_sources
from preprocessing.reading.readers import read
from preprocessing.reading.settings import ReadingConfig
from preprocessing.reading.sources import (
    Slice,
    SliceDigest,
    Source,
    compose_digests,
    digest_slices,
    open_bytes,
    read_blocks,
    short_names,
    shown,
    split,
)
from preprocessing.storage import InputError

ROOT = os.geteuid() == 0
TEXT = ReadingConfig()


def names(*patterns: str | Path) -> list[str]:
    return [Path(source.url).name for source in list_sources(list(map(str, patterns))).sources]


def test_globs_are_expanded_sorted_and_each_file_comes_once(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.md"):
        (tmp_path / name).write_text(name)
    found = list_sources(
        [f"{tmp_path}/*.txt", f"{tmp_path}/./a.txt", f"file://{tmp_path}/a.txt", f"{tmp_path}/c.md"]
    ).sources
    assert [Path(source.url).name for source in found] == ["a.txt", "b.txt", "c.md"]
    assert [source.size for source in found] == [5, 5, 4]
    assert found[0].url == str(tmp_path / "a.txt")


def test_directories_are_read_with_all_below_them_but_what_nobody_means(tmp_path: Path) -> None:
    for name in ("b/c/d.txt", "a.txt", ".git/x", "b/a.txt~", "#a.txt#", "_SUCCESS", ".hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "b" / "second.txt").hardlink_to(tmp_path / "a.txt")
    (tmp_path / "b" / "round").symlink_to(tmp_path)
    listing = list_sources([str(tmp_path)])
    assert [source.url for source in listing.sources] == [
        f"{tmp_path}/a.txt",
        f"{tmp_path}/b/c/d.txt",
    ]
    assert [path.removeprefix(f"{tmp_path}/") for path in listing.passed_over] == [
        "#a.txt#",
        ".git",
        ".hidden",
        "_SUCCESS",
        "b/a.txt~",
        "b/round",
        "b/second.txt",
    ]
    assert names(tmp_path / "b" / "a.txt~", tmp_path / ".hidden") == [".hidden", "a.txt~"]
    assert names(f"{tmp_path}/.h*") == [".hidden"]
    assert names(f"{tmp_path}/**/*.txt") == ["a.txt", "d.txt"]


def test_a_glob_passes_over_directories(tmp_path: Path) -> None:
    (tmp_path / "old.txt").mkdir()
    (tmp_path / "old.txt" / "x.txt").write_text("x")
    with pytest.raises(InputError, match="no such file"):
        list_sources([f"{tmp_path}/*.txt"])
    (tmp_path / "new.txt").write_text("x")
    listing = list_sources([f"{tmp_path}/*.txt"])
    assert [Path(source.url).name for source in listing.sources] == ["new.txt"]
    assert listing.passed_over == (f"{tmp_path}/old.txt",)
    assert names(tmp_path / "old.txt") == ["x.txt"]


@pytest.mark.parametrize(
    "name", ["part[1].txt", "a b.txt", "a#1.txt", "*.txt", "a\nb.txt", "a::b.txt", "?", "~"]
)
def test_a_name_is_taken_literally_where_it_exists(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    (tmp_path / "other.txt").write_text("other")
    (source,) = list_sources([f"{tmp_path}/{name}"]).sources
    assert source == Source(f"{tmp_path}/{name}", 1)
    assert rows_of(Slice(source, 0, 1)) == [(0, "text", "x")]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("none.txt", "no such file"),
        ("*.txt", "no such file"),
        ("empty", "no file in this directory"),
        ("broken.link", "cannot be read: the link leads to no file"),
        ("*.link", "broken.link: cannot be read: the link leads to no file"),
        ("", "the link leads to no file"),
        ("pipe", "a pipe, socket or device, not a regular file"),
        ("loop", "loop: cannot be read"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, pattern: str, message: str) -> None:
    (tmp_path / "broken.link").symlink_to(tmp_path / "gone")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=message):
        list_sources([str(tmp_path / pattern)])


def test_a_device_is_refused_at_once() -> None:
    assert stat.S_ISCHR(os.stat("/dev/zero").st_mode)
    with pytest.raises(InputError, match="not a regular file"):
        list_sources(["/dev/zero"])
    with pytest.raises(InputError, match="no regular file"), open_bytes("/dev/zero"):
        pass


def test_an_empty_input_is_not_the_working_directory() -> None:
    with pytest.raises(InputError, match="an input is empty"):
        list_sources([""])


@pytest.mark.skipif(ROOT, reason="root may read everything")
def test_a_file_without_permission_is_found_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "a.txt").chmod(0)
    with pytest.raises(InputError, match=r"a\.txt: cannot be read: Permission denied"):
        list_sources([str(tmp_path)])


@pytest.mark.parametrize("url", ["nosuch://bucket/a", "nosuch::memory://a"])
def test_an_unknown_protocol_is_an_input_error(url: str) -> None:
    with pytest.raises(InputError, match="nosuch"):
        list_sources([url])


def test_any_fsspec_url_is_read() -> None:
    system = fsspec.filesystem("memory")
    system.pipe("/readers/a.txt", b"one\n\ntwo")
    system.pipe("/readers/deep/b.txt", b"three")
    system.pipe("/readers/.b.txt", b"no")
    (source,) = list_sources(["memory://readers/*.txt"]).sources
    assert source == Source("memory:///readers/a.txt", 8)
    assert [row[0] for row in rows_of(Slice(source, 0, 8))] == [0, 5]
    assert [row[0] for row in rows_of(Slice(source, 2, 8))] == [5]
    found = list_sources(["memory://readers"])
    assert [source.url for source in found.sources] == [
        "memory:///readers/a.txt",
        "memory:///readers/deep/b.txt",
    ]
    assert found.passed_over == ("memory:///readers/.b.txt",)
    with pytest.raises(InputError, match="no such file"):
        list_sources(["memory://readers/*.gz"])


def test_a_file_that_changed_since_it_was_listed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    piece = whole(path)
    path.write_text("one and more")
    with pytest.raises(InputError, match=r"had 3 bytes.*has 12 now"):
        list(read(piece, TEXT))
    path.unlink()
    with pytest.raises(InputError, match=r"a\.txt: cannot be read"):
        list(read(piece, TEXT))


def test_the_plan_cuts_large_files_and_groups_small_ones() -> None:
    large, packed = Source("a.txt", 250), Source("b.txt.gz", 250)
    small = [Source(f"{name}.txt", 40) for name in "cde"]
    assert split([large, packed, *small], TEXT, 100) == [
        (Slice(large, 0, 125),),
        (Slice(large, 125, 250),),
        (Slice(packed, 0, 250),),
        (Slice(small[0], 0, 40), Slice(small[1], 0, 40)),
        (Slice(small[2], 0, 40),),
    ]
    for reading in (
        ReadingConfig(form="parquet"),
        ReadingConfig(form="json"),
        ReadingConfig(form="csv"),
        ReadingConfig(encoding="cp1252"),
    ):
        assert split([large], reading, 100) == [(Slice(large, 0, 250),)]
    assert len(split([large], ReadingConfig(encoding="UTF8"), 100)) == 2
    assert split([], TEXT, 100) == []
    with pytest.raises(ValueError, match="target_bytes"):
        split([large], TEXT, 0)


# -- digests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "lines", "jsonl", "json", "csv", "parquet"])
def test_a_digest_taken_along_is_that_of_the_bytes(tmp_path: Path, form: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one two three\n\n" * 200_000 + b"last")
    (source,) = list_sources([str(path)]).sources
    reading = ReadingConfig(form=form)
    size = source.size
    slices = [Slice(source, a, b) for a, b in ((0, 1), (1, 999_999), (999_999, size))]
    taken = []
    for piece in slices:
        digest = SliceDigest(piece)
        try:
            list(read(piece, reading, digest))
        except InputError:
            assert form == "csv"
        with open_bytes(source.url) as file:
            taken.append(digest.finish(file))
    assert compose_digests(taken) == digest_slices(slices)
    with open(path, "r+b") as changed:
        changed.seek(1_000_000)
        changed.write(b"!")
    assert compose_digests(taken) != digest_slices(slices)


def test_readers_read_what_they_digest_only_once(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"line\n\n" * 500_000)
    piece = whole(path)
    digest = SliceDigest(piece)
    list(read(piece, TEXT, digest))
    with open_bytes(str(path)) as file:
        read_before = list(read_blocks(file))
        digest.finish(file)
        assert file.tell() == piece.stop == sum(map(len, read_before))


# -- names and secrets ---------------------------------------------------------------------------


def test_names_hold_no_folders_of_the_machine_and_no_secrets() -> None:
    def of(*urls: str) -> list[str]:
        return list(short_names([Source(url, 0) for url in urls]).values())

    assert of("/home/me/x/a.txt", "/home/me/y/a.txt") == ["x/a.txt", "y/a.txt"]
    assert of("/home/me/what?.txt") == ["what?.txt"]
    assert of("https://u:pw@host/d/a.txt?X-Amz-Signature=abc") == ["a.txt"]
    assert of("https://host/a?token=1", "https://host/a?token=2") == ["a", "a#2"]
    assert of("https://u:pw@host/a/x", "https://u:pw@other/a/x") == [
        "***@host/a/x",
        "***@other/a/x",
    ]
    assert of(os.fsdecode(b"/d/caf\xe9.txt")) == ["caf\\xe9.txt"]


def test_errors_tell_no_secrets(tmp_path: Path) -> None:
    assert shown("https://u:pw@host/a?sig=abc") == "https://***@host/a?sig=***"
    assert shown("a\nb") == "a\\nb"
    assert shown(os.fsdecode(b"caf\xe9")) == "caf\\xe9"
    with pytest.raises(InputError) as caught:
        list_sources(["nosuch://key:hunter2secret@bucket/a?token=hunter3secret"])
    assert "hunter" not in str(caught.value)
    assert "nosuch://***@bucket/a?token=***" in str(caught.value)
