"""Text on a terminal: documents are foreign matter, and may hold sequences that command it.

>>> visible("one\\x1b[2Jtwo")
'one␛[2Jtwo'
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

Cell = str | int | None

_PICTURES = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "␡"}
_SPELLED_OUT = (
    range(0x80, 0xA0),  # C1: 8-bit forms of escape sequences
    range(0x61C, 0x61D),  # direction marks and overrides, which reorder what follows them
    range(0x200E, 0x2010),
    range(0x2028, 0x202F),
    range(0x2066, 0x206A),
    range(0xD800, 0xE000),  # lone surrogates, which no encoding writes
    range(0xFFF9, 0xFFFC),
    range(0xE0000, 0xE0080),  # invisible tags
)
_ON_A_LINE = _PICTURES | {code: f"<U+{code:04X}>" for codes in _SPELLED_OUT for code in codes}
_IN_A_TEXT = {code: shown for code, shown in _ON_A_LINE.items() if chr(code) not in "\t\n"}


def visible(text: str) -> str:
    """A text of several lines with its control characters made visible."""
    return text.translate(_IN_A_TEXT)


def on_a_line(text: object) -> str:
    """A name or a piece with every control character, line ends too, made visible."""
    return str(text).translate(_ON_A_LINE)


def open_console() -> Console:
    """Standard output: plain where it is no terminal or ``NO_COLOR`` is set."""
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(errors="backslashreplace")  # a poor locale is no reason to fail
    return Console(
        file=out,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=not out.isatty(),
    )


def table(header: Sequence[str], rows: Sequence[Sequence[Cell]], *, indent: int = 2) -> Text:
    """Aligned columns: numbers to the right with thousands marked, nothing cut off."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [
        max(map(cell_len, [name, *(row[place] for row in cells)]))
        for place, name in enumerate(header)
    ]
    numeric = [
        bool(rows) and all(row[place] is None or isinstance(row[place], int) for row in rows)
        for place in range(len(header))
    ]

    def line(values: Sequence[str]) -> str:
        parts = []
        for value, width, right in zip(values, widths, numeric, strict=True):
            space = " " * (width - cell_len(value))
            parts.append(space + value if right else value + space)
        return (" " * indent + "  ".join(parts)).rstrip() + "\n"

    text = Text.assemble((line(header), "dim"))
    for row in cells:
        text.append(line(row))
    return text


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else on_a_line(value)
