"""Records of files as plain values, for the tests of readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from preprocessing.reading.base import Documents, Reject, Split
from preprocessing.reading.listing import list_sources
from preprocessing.reading.readers import read
from preprocessing.reading.settings import ReadingConfig
from preprocessing.reading.sources import Slice

Row = tuple[int, str, str]
"""``(offset, "text", text)``, ``(offset, "split", "")`` or ``(offset, reason, detail)``."""


def whole(path: Path) -> Slice:
    (source,) = list_sources([str(path)]).sources
    return Slice(source, 0, source.size)


def rows_of(piece: Slice, **reading: Any) -> list[Row]:
    """The records of a slice, documents and rejects by their offsets."""
    rows: list[Row] = []
    for record in read(piece, ReadingConfig(**reading)):
        match record:
            case Documents():
                texts = record.texts.to_pylist()
                rows += [
                    (offset, "text", text)
                    for offset, text in zip(record.offsets.tolist(), texts, strict=True)
                ]
            case Reject():
                rows.append((record.offset, record.reason, record.detail))
            case Split():
                rows.append((record.offset, "split", ""))
    return rows


def records(path: Path, **reading: Any) -> list[Row]:
    """All records of a file, by offset."""
    return sorted(rows_of(whole(path), **reading), key=lambda row: row[0])


def texts(path: Path, **reading: Any) -> list[str]:
    """The texts of a file that has no rejects."""
    rows = records(path, **reading)
    assert [kind for _, kind, _ in rows if kind not in ("text", "split")] == []
    return [text for _, kind, text in rows if kind == "text"]


def outline(rows: list[Row]) -> list[tuple[int, str]]:
    """Offsets with texts, or with reasons."""
    return [(offset, text if kind == "text" else kind) for offset, kind, text in rows]


def reasons(rows: list[Row]) -> list[tuple[str, int]]:
    """Reasons with offsets."""
    return [(kind, offset) for offset, kind, _ in rows if kind not in ("text", "split")]
