import json
import warnings
from pathlib import Path

import pytest

from preprocessing import documentation
from preprocessing.documentation import (
    docstrings,
    documents,
    main,
    prose,
    reference_topics,
    write_corpus,
)


def paragraphs(*lines: str) -> list[str]:
    return list(prose("\n".join(lines)))


def test_hard_wrapped_lines_become_one_paragraph() -> None:
    found = paragraphs(
        "Return the mean of", "    all the values.", "", "    It is not robust", "    at all."
    )
    assert found == ["Return the mean of all the values.", "It is not robust at all."]
    found = paragraphs("Return it.", "", "    The mean is not", "    a robust estimate.")
    assert found == ["The mean is not a robust estimate."]


def test_an_item_of_a_list_is_a_paragraph_with_the_lines_that_hang_from_it() -> None:
    assert paragraphs(
        "Either of the following is raised:",
        "  - an error where the value",
        "    is out of range",
        "  - a warning in the other case",
        "Args:",
        "    size (int): The number of rows",
        "        that are read at once.",
        "    :param name: the name of the file",
    ) == [
        "Either of the following is raised:",
        "an error where the value is out of range",
        "a warning in the other case",
        "size (int): The number of rows that are read at once.",
        "the name of the file",
    ]


def test_numpy_sections_keep_their_descriptions_alone() -> None:
    assert paragraphs(
        "Parameters",
        "----------",
        "values : array of the type float",
        "    The values to take the mean of.",
        "axis : int",
        "    The axis that goes away.",
    ) == ["The values to take the mean of.", "The axis that goes away."]


@pytest.mark.parametrize(
    "lines",
    [
        (">>> the = a + b for it in this", "the output of it is this"),
        ("```python", "this is a line of code", "", "and this is one", "```"),
        ("", ".. code-block:: python", "", "    this is a line of code", "", "    and so is this"),
        ("from a.b import of, the, and, this",),
        ("+-----+-----+", "| a of the b | c |", "+-----+-----+"),
        ("x = f(a, b) + (y[0] - z[1]) * 2 if a is b else {}",),
        ("one two three four five",),
        ("of the row",),
    ],
)
def test_what_is_no_prose_goes(lines: tuple[str, ...]) -> None:
    assert paragraphs(*lines) == []


def test_literal_blocks_go_and_notes_stay() -> None:
    assert paragraphs(
        "The file is read as in this example::",
        "",
        "    with the file as it is",
        "",
        "    and this is code too",
        "",
        ".. versionchanged:: 3.9",
        "    The mode of the file is kept.",
        "",
        "After the example the prose goes on.",
    ) == [
        "The file is read as in this example:",
        "The mode of the file is kept.",
        "After the example the prose goes on.",
    ]


def test_inline_markup_goes() -> None:
    text = "A *strong*, **firm** :class:`~a.Row` of ``x`` on `the page <http://a.b>`_, 2 * 3 * 4"
    assert paragraphs(text) == ["A strong, firm a.Row of x on the page, 2 * 3 * 4"]


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


def test_no_paragraph_appears_twice_and_short_modules_are_left_out() -> None:
    found = [
        ("p", "p.a", [LONG, "The licence of this file is at the top.\n\n" + LONG]),
        ("p", "p.b", ["The licence of this file is at the top.", "B: " + LONG]),
        ("q", "q.c", ["The rest is too short to be kept."]),
    ]
    assert list(documents(found, 10**6)) == [
        ("p", "p.a", LONG.strip() + "\nThe licence of this file is at the top."),
        ("p", "p.b", "B: " + LONG.strip()),
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
    assert json.loads(output.read_text()) == {"text": LONG.strip(), "module": "p.a"}


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


def test_the_command_writes_the_same_prose_each_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = [tmp_path / name for name in ("first.jsonl", "second.jsonl")]
    for output in outputs:
        assert main([str(output), "--megabytes", "0.5"]) == 0
    assert "0.5 megabytes of text" in capsys.readouterr().out
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    rows = [json.loads(line) for line in outputs[0].read_text().splitlines()]
    lines = [line for row in rows for line in row["text"].split("\n")]
    assert len({line.lower() for line in lines}) == len(lines)
    letters = sum(character.isalpha() or character == " " for line in lines for character in line)
    assert letters / sum(map(len, lines)) > 0.93  # 0.947 was measured
    with pytest.raises(SystemExit):
        main([str(tmp_path / "third.jsonl"), "--megabytes", "0"])
