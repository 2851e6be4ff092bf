"""WikiExtractor's text output: ``<doc id=.. url=.. title=..>`` blocks.

    <doc id="12" url="https://en.wikipedia.org/wiki?curid=12" title="Anarchism">
    Anarchism

    Anarchism is a political philosophy ...
    </doc>

A block's text is what stands between, its title line included, blank lines and all. (The JSON
output is read as the JSON lines it is.)
"""

from __future__ import annotations

from collections.abc import Iterator

from preprocessing.reading.admission import oversized_record
from preprocessing.reading.base import BUFFER_BYTES, DamagedError, Found, Reject
from preprocessing.reading.blanks import is_blank
from preprocessing.reading.fields import Rows
from preprocessing.reading.lines import bounded_lines
from preprocessing.reading.settings import ReadingConfig


def articles(
    blocks: Iterator[bytes], offset: int, reading: ReadingConfig
) -> Iterator[Found | Reject]:
    """The articles, and whatever lies outside of them as a reject.

    Args:
        blocks: the text from ``offset`` on.
        offset: of the first byte.
        reading: how large a document may be.
    """
    limit = reading.max_record_bytes
    state = _Articles(reading)
    try:
        for at, line in bounded_lines(blocks, offset, limit):
            if reject := state.line(at, line):
                yield reject
            if state.rows.size >= BUFFER_BYTES:
                yield state.rows.take()
    except DamagedError:
        yield state.rows.take()
        raise
    yield state.rows.take()
    if state.body is not None:
        yield _open_end(state.begin)


class _Articles:
    """The articles that have ended, and the lines so far of the one that has not."""

    def __init__(self, reading: ReadingConfig) -> None:
        self.rows = Rows()
        self.body: list[bytes] | None = None
        self.begin = 0
        self._reading = reading
        self._limit = reading.max_record_bytes
        self._size = 0
        self._stray = False

    def line(self, at: int, line: bytes | None) -> Reject | None:
        """One more line; None for one past the limit."""
        bare = b"" if line is None else line.rstrip()
        if bare.startswith(b"<doc ") and bare.endswith(b">"):
            reject = None if self.body is None else _open_end(self.begin)
            self.begin, self.body, self._size, self._stray = at, [], 0, False
            return reject
        if bare == b"</doc>" and self.body is not None:
            if self._size <= self._limit:
                self.rows.add(b"".join(self.body).strip(b"\r\n"), self.begin)
            self.body = None
            return None
        if self.body is not None:
            return self._more(self.body, line)
        if self._stray or (line is not None and is_blank(line)):
            return None
        self._stray = True
        start = repr(bare[:30])[1:]
        return Reject("invalid_markup", at, f"text outside of <doc ...> and </doc>: {start}")

    def _more(self, body: list[bytes], line: bytes | None) -> Reject | None:
        """A line of an article; of one past the limit nothing is kept."""
        was_large = self._size > self._limit
        self._size += self._limit + 1 if line is None else len(line)
        if self._size <= self._limit and line is not None:
            body.append(line)
            return None
        body.clear()
        return None if was_large else oversized_record(self.begin, self._reading)


def _open_end(begin: int) -> Reject:
    return Reject("invalid_markup", begin, "a <doc ...> that no </doc> ends")
