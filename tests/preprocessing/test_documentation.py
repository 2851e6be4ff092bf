import json
import warnings
from pathlib import Path

import pytest

from preprocessing import documentation
from preprocessing.documentation import (
    docstrings,
    documents,
    main,
    reference_topics,
    write_corpus,
)


def test_docstrings_come_in_the_order_of_the_lines_without_running_the_file() -> None:
    source = b'''"""Module."""
raise SystemExit("was run")
"no docstring"
if True:
    class A:
        """Class."""
        def f(self):
            """Method."""
            def g():
                """Inner."""
try:
    pass
except ValueError:
    async def h():
        """Coroutine with a bad escape \\d."""
'''
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = docstrings(source)
    assert found == [
        "Module.",
        "Class.",
        "Method.",
        "Inner.",
        "Coroutine with a bad escape \\d.",
    ]


@pytest.mark.parametrize("source", [b"def", b"\0", b"\xff", b"(" * 5000, b"# coding: nosuch\n"])
def test_a_file_that_does_not_parse_has_no_docstrings(source: bytes) -> None:
    assert docstrings(source) == []


def test_topics_are_read_from_their_source() -> None:
    source = b"topics = {'b': 'second ' 'topic', 'a': 'first'}\n"
    assert reference_topics(source) == [("a", "first"), ("b", "second topic")]


LONG = "The first of the paragraphs is long enough to be a document of its own. " * 3


def test_no_docstring_appears_twice_and_short_modules_are_left_out() -> None:
    inherited = "Inherited.\n\n    " + LONG.strip()
    found = [
        ("p", "p.a", [LONG, inherited]),
        ("p", "p.b", [inherited.upper().replace("    ", "  "), "B: " + LONG]),
        ("q", "q.c", ["The rest is too short to be kept."]),
    ]
    assert list(documents(found, 10**6)) == [
        ("p", "p.a", f"{LONG}\nInherited.\n\n{LONG.strip()}"),
        ("p", "p.b", f"B: {LONG}"),
    ]


def test_the_budget_ends_the_corpus_after_the_document_that_reaches_it() -> None:
    found = [("p", f"p.{name}", [f"In {name}: {LONG}"]) for name in "abcdef"]
    assert [module for _, module, _ in documents(found, 500)] == ["p.a", "p.b", "p.c"]


def test_a_corpus_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def breaks():  # type: ignore[no-untyped-def]
        yield "p", "p.a", [LONG]
        raise KeyboardInterrupt

    output = tmp_path / "out" / "corpus.jsonl"
    with pytest.raises(KeyboardInterrupt):
        write_corpus(output, breaks(), 1)
    assert list(output.parent.iterdir()) == []
    line = write_corpus(output, [("p", "p.a", [LONG])], 1)
    assert line == f"{output}: 1 documents, 0.0 megabytes of text, 1 packages"
    assert json.loads(output.read_text()) == {"text": LONG, "module": "p.a"}


def test_packages_take_turns_without_tests_and_large_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("lib/b.py", "lib/pydoc_data/topics.py", "lib/test/t.py", "lib/site-packages/s.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("topics = {'t': 'text'}")
    for name in ("p/__init__.py", "p/a.py", "p/tests/t.py", "p/c.txt", "q.py", "r/z/y.py"):
        (tmp_path / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / name).write_text(f"'{name}'")
    (tmp_path / "site" / "p" / "large.py").write_text("#" * documentation.MAX_FILE_BYTES)
    paths = {"stdlib": tmp_path / "lib", "purelib": tmp_path / "site", "platlib": tmp_path / "site"}
    monkeypatch.setattr(documentation.sysconfig, "get_path", lambda name: str(paths[name]))
    assert list(documentation.modules()) == [
        ("pydoc_data", "pydoc_data.topics.t", ["text"]),
        ("standard library", "b", []),
        ("p", "p", ["p/__init__.py"]),
        ("q", "q", ["q.py"]),
        ("r", "r.z.y", ["r/z/y.py"]),
        ("p", "p.a", ["p/a.py"]),
    ]


def test_the_command_writes_the_same_text_each_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = [tmp_path / name for name in ("first.jsonl", "second.jsonl")]
    for output in outputs:
        assert main([str(output), "--megabytes", "0.5"]) == 0
    assert "0.5 megabytes of text" in capsys.readouterr().out
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    rows = [json.loads(line) for line in outputs[0].read_text().splitlines()]
    assert len({row["module"] for row in rows}) == len(rows) > 20
    assert all(len(row["text"]) >= 200 for row in rows)
    with pytest.raises(SystemExit):
        main([str(tmp_path / "third.jsonl"), "--megabytes", "0"])
