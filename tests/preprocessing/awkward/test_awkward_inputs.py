import sys
from pathlib import Path

import pytest
from awkward_files import ARCHIVES, CASES, CUT, Awkward

from preprocessing.reading import base, lines, readers, sources
from preprocessing.reading.settings import ReadingConfig
from preprocessing.reading.sources import Slice, can_cut

sys.path.append(str(Path(__file__).parents[1] / "reading"))

from reading_cases import Row, rows_of, whole


def told(rows: list[Row]) -> list[tuple[int, str]]:
    return [(offset, text if kind == "text" else kind.upper()) for offset, kind, text in rows]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_an_awkward_input_gives_what_it_should(tmp_path: Path, case: Awkward) -> None:
    path = tmp_path / case.name
    path.write_bytes(case.data)
    rows = sorted(rows_of(whole(path), **case.reading), key=lambda row: row[0])
    assert told(rows) == case.expected
    for _, kind, detail in rows:
        assert kind in ("text", "split") or detail, "a reject says why"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_neither_cuts_nor_blocks_show(
    tmp_path: Path, case: Awkward, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / case.name
    path.write_bytes(case.data)
    piece = whole(path)
    size = piece.source.size
    buffer, block, cuts = 3, 2, range(size + 1)
    if size > 100:
        buffer, block, cuts = size // 9, size // 10, range(0, size, size // 7)
    monkeypatch.setattr(lines, "BUFFER_BYTES", buffer)
    monkeypatch.setattr(base, "BUFFER_BYTES", buffer)
    if case not in ARCHIVES + CUT:  # how far damage reaches is told by how an archive is read
        monkeypatch.setattr(readers, "read_blocks", lambda file: sources.read_blocks(file, block))
    if not can_cut(piece.source, ReadingConfig(**case.reading)):
        cuts = range(1)
    for cut in cuts:
        before = rows_of(Slice(piece.source, 0, cut), **case.reading) if cut else []
        after = rows_of(Slice(piece.source, cut, size), **case.reading)
        halves = [sorted(part, key=lambda row: row[0]) for part in (before, after)]
        assert told([*halves[0], *halves[1]]) == case.expected, cut
