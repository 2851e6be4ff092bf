import doctest
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from preprocessing.inspection import terminal
from preprocessing.inspection.terminal import on_a_line, open_console, table, visible


def test_the_example_in_the_docstring_holds() -> None:
    assert doctest.testmod(terminal) == (0, 1)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("\x9b2J", "<U+009B>2J"),
        ("a\rb\x7f", "a␍b␡"),
        ("\u202etxt.exe", "<U+202E>txt.exe"),
        ("\ud800", "<U+D800>"),
        ("one\n\ttwo", "one\n\ttwo"),
        ("Äpfel 東京 ☃", "Äpfel 東京 ☃"),
    ],
)
def test_control_characters_become_visible(raw: str, shown: str) -> None:
    assert visible(raw) == shown


@given(st.text(st.characters()))
def test_nothing_that_commands_a_terminal_is_left(text: str) -> None:
    for shown, kept in ((visible(text), "\n\t"), (on_a_line(text), "")):
        for character in set(shown) - set(kept):
            assert ord(character) >= 0x20
            assert not 0x7F <= ord(character) < 0xA0
            assert character not in "\u061c\u200e\u200f\u2028\u2029\u202d\u202e\u2066\u2069"
        shown.encode()


def test_columns_are_aligned_by_their_width_on_the_screen() -> None:
    lines = table(["name", "rows"], [("東京", 1234), ("x\ny", 5)]).plain.splitlines()
    assert lines == ["  name   rows", "  東京  1,234", "  x␊y       5"]
    assert {cell_len(line) for line in lines} == {13}


def test_no_colour_is_heard_and_a_poor_locale_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    open_console().print("red", style="red")
    assert "\x1b[31mred" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    open_console().print("red [bold] :smile:", style="bold red")
    assert capsys.readouterr().out == "red [bold] :smile:\n"
