"""CSV and TSV: rows of fields, in quotes where they hold delimiters or line ends.

A row that is not as its header says is rejected: where a quote is stray or a field is missing,
what stands in the column of the text need not be the text. How far a row with a wrong quote reaches
is told in :mod:`preprocessing.reading.raw_rows`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

from preprocessing.reading.base import BUFFER_BYTES, DamagedError, Found, Reject
from preprocessing.reading.fields import JOINER, Rows, label
from preprocessing.reading.raw_rows import raw_rows
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
    csv.field_size_limit(reading.max_record_bytes)
    raw: list[str] = []
    parser = csv.reader(
        iter(raw.pop, None),
        delimiter=reading.field_delimiter,
        quotechar=reading.quote,
        quoting=csv.QUOTE_NONE if reading.quote is None else csv.QUOTE_MINIMAL,
        strict=True,
    )
    columns: _Columns | None = None
    rows = Rows()
    found = raw_rows(blocks, offset, reading)
    while True:
        try:
            one = next(found, None)
        except DamagedError:
            yield rows.take()
            raise
        if one is None:
            break
        if isinstance(one, Reject):
            yield one
            continue
        begin, data = one
        # What is no UTF-8 passes as escapes and becomes the same bytes again.
        raw.append(data.decode(errors="surrogateescape"))
        row = next(parser)
        if not row:
            continue
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
