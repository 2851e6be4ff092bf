"""Reading from far away: in time, as often as it takes, without a secret in what is said."""

import functools
import http.server
import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet
import pytest
from s3_proxy import BUCKET, Fault, FaultProxy, s3_server

from preprocessing import remote
from preprocessing.errors import InputError, UnreachableError
from preprocessing.places import RemotePath, to_place
from preprocessing.remote import ask, open_url, within

DATA = bytes(range(256)) * 64
"""16 KiB; blocks are of 4 KiB here."""


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(remote, "LIMIT", 1.0)
    monkeypatch.setattr(remote, "BLOCK_BYTES", 4096)


@pytest.fixture(scope="module")
def server() -> Iterator[FaultProxy]:
    with s3_server() as proxy:
        fsspec.filesystem("s3").pipe_file(f"{BUCKET}/data", DATA)
        yield proxy


@pytest.fixture
def proxy(server: FaultProxy) -> Iterator[FaultProxy]:
    server.requests.clear()
    server.happened.clear()
    yield server
    server.plan = lambda number, method, path: None


# -- time limits ---------------------------------------------------------------------------------


def test_what_hangs_is_given_up() -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no whole answer within 0\.2 s"):
        within(0.2, lambda: time.sleep(30))
    assert time.monotonic() - started < 5
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 // 0)
    assert within(5, lambda: 7) == 7


def test_passing_faults_are_asked_again_and_certain_ones_are_not() -> None:
    calls: list[int] = []

    def fail(error: Exception, times: int) -> str:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return "there"

    assert ask("read", "s3://b/a", functools.partial(fail, ConnectionResetError("gone"), 2)) == (
        "there"
    )
    calls.clear()
    with pytest.raises(UnreachableError, match=r"s3://b/a: could not read: OSError: 503 .*3 att"):
        ask("read", "s3://b/a", functools.partial(fail, OSError("503 slow down"), 3))
    for certain in (FileNotFoundError("a"), PermissionError("a"), ValueError("a"), KeyError("a")):
        calls.clear()
        with pytest.raises(type(certain)):
            ask("read", "s3://b/a", functools.partial(fail, certain, 1))
        assert len(calls) == 1


def test_unreachable_is_worth_another_try_of_the_task() -> None:
    from preprocessing.errors import is_transient

    assert is_transient(UnreachableError("x"))
    assert not is_transient(InputError("x"))
    assert not is_transient(FileNotFoundError(2, "x"))


# -- files -----------------------------------------------------------------------------------------


def test_any_place_of_a_file_can_be_read(proxy: FaultProxy) -> None:
    with open_url(f"s3://{BUCKET}/data") as file:
        assert file.seek(0, io.SEEK_END) == len(DATA)
        for start, count in ((0, 1), (5000, 9000), (4095, 2), (16000, 1000), (16384, 5), (3, 0)):
            file.seek(start)
            assert file.read(count) == DATA[start : start + count]
        file.seek(0)
        assert file.read() == DATA
    reads = [path for method, path in proxy.requests if method == "GET"]
    assert reads


@pytest.mark.parametrize("fault", ["drop", "cut", "500", "503", "slow", "silent", "drip"])
def test_every_passing_fault_is_survived(proxy: FaultProxy, fault: Fault) -> None:
    proxy.plan = lambda number, method, path: fault if number == 2 else None
    started = time.monotonic()
    with open_url(f"s3://{BUCKET}/data") as file:
        assert file.read() == DATA
    assert proxy.happened == [fault]
    assert time.monotonic() - started < 8


@pytest.mark.parametrize("fault", ["silent", "drip"])
def test_server_that_never_ends_its_answer_is_given_up(
    proxy: FaultProxy, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "LIMIT", 0.4)
    file = open_url(f"s3://{BUCKET}/data")
    proxy.plan = lambda number, method, path: fault
    started = time.monotonic()
    with pytest.raises(UnreachableError, match=r"could not read: TimeoutError: no whole answer"):
        file.read()
    assert time.monotonic() - started < 8


def test_file_that_is_not_there_is_told_at_once(proxy: FaultProxy) -> None:
    with pytest.raises(FileNotFoundError):
        open_url(f"s3://{BUCKET}/nothing")
    with pytest.raises(InputError, match=r"gopher://x: cannot be opened"):
        open_url("gopher://x")


def test_parquet_far_away(proxy: FaultProxy) -> None:
    table = pa.table({"text": [f"line {index}" * 20 for index in range(500)]})
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(table, sink, compression="none", row_group_size=100)
    fsspec.filesystem("s3").pipe_file(f"{BUCKET}/t.parquet", sink.getvalue().to_pybytes())
    proxy.plan = lambda number, method, path: "cut" if number % 3 == 2 else None
    with open_url(f"s3://{BUCKET}/t.parquet") as file:
        assert pa.parquet.read_table(file).equals(table)
    assert "cut" in proxy.happened


@pytest.fixture
def plain_server(tmp_path: Path) -> Iterator[str]:
    """A web server that knows no ranges."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_web_server_without_ranges(plain_server: str, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(DATA)
    with open_url(f"{plain_server}/data") as file:
        assert file.seek(0, io.SEEK_END) == len(DATA)
        file.seek(9000)
        assert file.read(100) == DATA[9000:9100]
        file.seek(0)
        assert file.read() == DATA
    with pytest.raises(FileNotFoundError):
        open_url(f"{plain_server}/nothing")


def test_dead_server_is_named_without_what_is_secret() -> None:
    with pytest.raises(UnreachableError) as caught:
        open_url("http://ann:hunter22@127.0.0.1:9/a?token=abcdefghij&part=1")
    assert "http://***@127.0.0.1:9/a?token=***&part=1: could not look at" in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


# -- places ----------------------------------------------------------------------------------------


@pytest.fixture
def place() -> Iterator[RemotePath]:
    store = fsspec.filesystem("memory")
    store.store.clear()
    place = to_place("memory://bucket/some folder")
    assert isinstance(place, RemotePath)
    yield place
    store.store.clear()


def test_places_are_paths_with_their_protocol() -> None:
    place = to_place("s3://bucket/a//b/")
    assert str(place) == "s3://bucket/a/b"
    assert str(place / "c" / "d.arrow") == "s3://bucket/a/b/c/d.arrow"
    assert isinstance((place / "c").parent.with_name("x"), RemotePath)
    assert str(place.parent.parent) == "s3://bucket"
    assert place / "c" == to_place("s3://bucket/a/b/c")
    assert to_place("/tmp/x") == Path("/tmp/x")
    assert to_place("file:///tmp/x") == Path("/tmp/x")
    assert not isinstance(to_place("a:/b"), RemotePath)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://host/a", "no place for output"),
        ("zip://a::s3://b/c", "no place for output"),
        ("s3://key:secret@bucket/a", "credentials"),
        ("s3://bucket/a?versionId=3", "credentials and queries"),
        (7, "should be a path"),
    ],
)
def test_places_that_are_none(text: object, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        to_place(text)


def test_objects_are_written_found_and_removed(place: RemotePath, tmp_path: Path) -> None:
    assert not place.exists()
    assert list(place.iterdir()) == []
    (place / "a" / "one").write_bytes(b"1")
    (tmp_path / "two").write_bytes(b"22")
    (place / "a" / "two").upload(tmp_path / "two")
    assert [path.name for path in place.iterdir()] == ["a"]
    assert (place / "a").is_dir()
    assert (place / "a" / "one").is_file()
    assert (place / "a" / "two").stat().st_size == 2
    assert (place / "a" / "two").stat().st_mtime > 1e9
    assert place.find() == {place / "a" / "one": 1, place / "a" / "two": 2}
    assert list(place.rglob("t*")) == [place / "a" / "two"]
    assert (place / "a" / "two").read_text() == "22"
    (place / "a" / "one").unlink()
    (place / "a" / "one").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        (place / "a" / "one").unlink()
    place.remove_tree()
    place.remove_tree()
    assert not place.exists()


def test_what_wants_a_local_file_is_told(place: RemotePath, tmp_path: Path) -> None:
    (place / "a").write_bytes(b"1")
    with pytest.raises(InputError, match=r"memory://bucket/some folder/a: lies in an object store"):
        (tmp_path / "copy").hardlink_to(place / "a")


def test_store_that_is_away_is_not_taken_for_an_empty_one(
    place: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "info", away)
    for question in (place.exists, place.is_dir, place.is_file, place.stat):
        with pytest.raises(UnreachableError, match="could not look at: ConnectionError: no route"):
            question()
