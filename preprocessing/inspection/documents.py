"""Documents: where they come from, and their text; rows of any other shard likewise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.text import Text

from preprocessing.inspection.outputs import Output, Selection, read_rows
from preprocessing.inspection.terminal import on_a_line, visible

MOST_CHARACTERS = 2000
_BEFORE_MATCH = 200


def read_documents(output: Output, selection: Selection) -> Iterator[dict[str, Any]]:
    """The selected rows as plain values; ids in hexadecimal."""
    for row in read_rows(output, selection):
        plain = {name: _plain(value) for name, value in row.values.items()}
        if "text" in plain:
            plain = {"characters": len(plain["text"]), **plain}
        yield {"row": row.number, "shard": row.shard, **plain}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value


def render(plain: Mapping[str, Any], grep: str | None) -> Text:
    """A document for a terminal: of long ones the beginning, or what is around a match."""
    text = Text.assemble((f"{plain['shard']} row {plain['row']:,}\n", "bold"))
    for name, value in plain.items():
        if name not in ("row", "shard", "text") and value is not None:
            shown = str(value)
            text.append(f"  {name}: ", style="dim")
            text.append(on_a_line(shown[:MOST_CHARACTERS]) + "\n")
    if "text" not in plain:
        return text
    whole = plain["text"]
    match = whole.find(grep) if grep else -1
    start = max(0, match - _BEFORE_MATCH) if match >= MOST_CHARACTERS - _BEFORE_MATCH else 0
    stop = min(len(whole), start + MOST_CHARACTERS)
    if start:
        text.append(f"… {start:,} characters before\n", style="dim")
    body = Text(visible(whole[start:stop]))
    if grep:
        body.highlight_words([visible(grep)], style="reverse")
    text.append_text(body).append("\n")
    if stop < len(whole):
        text.append(f"… {len(whole) - stop:,} more characters\n", style="dim")
    return text
