"""CSV and TSV: rows of fields, in quotes where they hold delimiters or line ends.

A row that is not as its header says is rejected: where a quote is open or a field is missing, what
stands in the column of the text need not be the text.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

from preprocessing.reading.admission import oversized
from preprocessing.reading.base import BUFFER_BYTES, DamagedError, Found, Reject
from preprocessing.reading.fields import JOINER, Rows, label
from preprocessing.reading.json_forms import RAW_FACTOR
from preprocessing.reading.lines import bounded_lines
from preprocessing.reading.settings import ReadingConfig
from preprocessing.storage import InputError


def rows_of(
    blocks: Iterator[bytes], offset: int, reading: ReadingConfig, name: str
) -> Iterator[Found | Reject]:
    """The rows after the header.

    Args:
        blocks: the text from ``offset`` on.
        offset: of the first byte.
        reading: delimiter, quote and the names of the columns.
        name: of the file, for errors.

    Raises:
        InputError: there is no such column.
    """
    lines = _Lines(blocks, offset, RAW_FACTOR * reading.max_document_bytes)
    csv.field_size_limit(lines.limit)
    parser = csv.reader(
        lines,
        delimiter=reading.delimiter or ("\t" if reading.form == "tsv" else ","),
        quotechar=reading.quote,
        quoting=csv.QUOTE_NONE if reading.quote is None else csv.QUOTE_MINIMAL,
        strict=True,
    )
    columns: _Columns | None = None
    rows = Rows()
    while True:
        lines.begin = None
        try:
            row = next(parser)
        except StopIteration:
            break
        except DamagedError:
            yield rows.take()
            raise
        except csv.Error as error:
            yield Reject("invalid_csv", lines.begin or 0, str(error))
            continue
        finally:
            for place in lines.take_oversized():
                yield oversized(place, lines.limit)
        if not row:
            continue
        begin = lines.begin or 0
        if columns is None:
            columns = _Columns(row, reading, name)
            if reading.header:
                continue
        if len(row) != columns.count:
            detail = f"{len(row)} fields where {columns.count} should be"
            yield Reject("invalid_csv", begin, detail)
            continue
        texts = [row[index] for index in columns.texts]
        text = JOINER.join(filter(None, texts)) if len(texts) > 1 else texts[0]
        rows.add(
            text.encode(errors="surrogateescape"),
            begin,
            None if columns.language is None else label(row[columns.language]),
            None if columns.licence is None else label(row[columns.licence]),
        )
        if rows.size >= BUFFER_BYTES:
            yield rows.take()
    yield rows.take()


class _Columns:
    """Where in a row the fields are."""

    def __init__(self, first: Sequence[str], reading: ReadingConfig, name: str) -> None:
        names = first if reading.header else [str(number + 1) for number in range(len(first))]

        def find(column: str) -> int:
            if names.count(column) != 1:
                shown = ", ".join(names[:20]).encode(errors="replace").decode()
                number = "no column" if column not in names else "more than one column"
                raise InputError(
                    f"{name}: {number} '{column}'; there are: {shown}. Set text_field (and "
                    "language_field, licence_field), delimiter, or header: false"
                )
            return names.index(column)

        self.count = len(first)
        self.texts = [find(column) for column in reading.text_fields]
        self.language = None if reading.language_field is None else find(reading.language_field)
        self.licence = None if reading.licence_field is None else find(reading.licence_field)


class _Lines:
    """Lines as the parser wants them; ``begin`` is the offset of the first one since it was None.

    What is no UTF-8 passes as escapes and becomes the same bytes again. A line past the limit is
    left out.
    """

    def __init__(self, blocks: Iterator[bytes], offset: int, limit: int) -> None:
        self.limit = limit
        self.begin: int | None = None
        self._oversized: list[int] = []
        self._lines = bounded_lines(blocks, offset, limit)

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        for offset, line in self._lines:
            if line is not None:
                self.begin = offset if self.begin is None else self.begin
                return line.decode(errors="surrogateescape")
            self._oversized.append(offset)
        raise StopIteration

    def take_oversized(self) -> list[int]:
        """Where lines were left out since the last call."""
        places, self._oversized = self._oversized, []
        return places
