"""Where the rows of CSV begin and end: the raw bytes of each, however its fields are quoted.

A field that begins with a quote ends at the next one that is not doubled, and behind that one
stands a delimiter or a line end. Where something else does, a quote is *stray*: nobody knows which
quotes open and which close, and lines that are rows by their looks may be lines of a text. Such a
row is rejected as a whole, up to the first of these places:

- behind a quote at the end of a line;
- before a line whose first quote opens a field (it stands at the beginning of the line or behind a
  delimiter, and text behind it), for then the field that seemed open was never closed;
- behind the first line end that is more than the limit away from where the row begins.

Rows before and behind are read as if nothing were between. A quote that nothing closes, and behind
which there are no others, takes the rest of the file with it: a file that was cut in the middle of
a text looks just the same. What is lost the reject says, in bytes and lines.

    1,"He said "hi" to      a stray quote: rejected
    me, then left           with it
    and so, it ends"        with it, up to here
    2,fine                  a row
    3,"never closed         rejected
    4,lost                  with it
    5,"a, b"                a row
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from preprocessing.reading.admission import oversized_record
from preprocessing.reading.base import Reject, gathered
from preprocessing.reading.settings import ReadingConfig

RawRow = tuple[int, bytes]
"""Its offset, and its bytes with their line end."""

_LINE_END = re.compile(rb"\r\n|\n|\r")


def raw_rows(
    blocks: Iterator[bytes], offset: int, reading: ReadingConfig
) -> Iterator[RawRow | Reject]:
    """The rows, blank lines among them; all that is given parses, and is within the limit.

    Args:
        blocks: the text from ``offset`` on.
        offset: of the first byte.
        reading: delimiter, quote and how large a row may be.
    """
    splitter = _Splitter(offset, reading)
    for block in gathered(blocks, lambda: len(splitter.carry)):
        yield from splitter.step(block, final=False)
    yield from splitter.step(b"", final=True)


class _Grammar:
    """Delimiter and quote as bytes, and what can be looked for with them."""

    def __init__(self, reading: ReadingConfig) -> None:
        self.delimiter = reading.field_delimiter.encode()
        self.quote = b"" if reading.quote is None else reading.quote.encode()
        delimiter, quote = re.escape(self.delimiter), re.escape(self.quote)
        field = _without(self.delimiter, rb"\r\n")
        if quote:
            inner = _without(self.quote)
            often = b"*+" if len(self.quote) == 1 else b"*"  # as in _without
            closed = rb"%b%b(?:%b%b%b)%b%b" % (quote, inner, quote, quote, inner, often, quote)
            field = rb"(?:%b|(?!%b)%b)" % (closed, quote, field)
        self.fields = re.compile(rb"(?:%b%b)*" % (field, delimiter))
        self.row = re.compile(rb"(?:%b%b)*%b(?:\r\n|\n|\r|\Z)" % (field, delimiter, field))
        self.outside = re.compile(rb"%b|\r\n|\n|\r" % delimiter)
        self.inside = re.compile(rb"%b|\r\n|\n|\r" % quote)


def _without(mark: bytes, excluded: bytes = b"") -> bytes:
    """A pattern for bytes up to a mark, or to any of the excluded ones.

    Python before 3.11.5 matches possessive repeats of groups wrongly where it has to go back in
    them, which this never does.
    """
    first, rest = re.escape(mark[:1]), re.escape(mark[1:])
    run = rb"[^%b%b]*+" % (first, excluded)
    return rb"%b(?:%b(?!%b)%b)*" % (run, first, rest, run) if rest else run


@dataclass
class _Passed:
    """A row that is looked at byte by byte: it has not ended yet, or is not well formed.

    Attributes:
        begin: its offset in the text.
        at: place in the buffer up to which it has been looked at.
        lines: how many have ended in it.
        line: place in the buffer where the current line begins, where no quote has been seen in
            that line and all of it is at hand.
    """

    begin: int
    at: int
    lines: int
    state: Literal["before", "outside", "inside"] = "before"
    stray: bool = False
    line: int | None = None


class _Splitter:
    """``carry`` are the bytes of the row that has not ended, or as little of them as will do."""

    def __init__(self, offset: int, reading: ReadingConfig) -> None:
        self.carry = b""
        self._at = offset
        self._reading = reading
        self._limit = reading.max_record_bytes
        self._grammar = _Grammar(reading)
        self._passed: _Passed | None = None

    def step(self, block: bytes, *, final: bool) -> Iterator[RawRow | Reject]:
        """What has ended with these bytes."""
        data = self.carry + block
        begin = 0
        while begin < len(data) or (final and self._passed):
            if self._passed is None:
                match = self._grammar.row.match(data, begin)
                if match and (final or match.end() < len(data) or data.endswith(b"\n")):
                    end = match.end()
                    if end - begin > self._limit:
                        yield oversized_record(self._at + begin, self._reading)
                    else:
                        yield self._at + begin, data[begin:end]
                    begin = end
                    continue
            passed = self._passed or self._first_look(data, begin)
            stop = self._end(data, passed, final=final)
            if stop is None:
                if self._at + len(data) - passed.begin > self._limit:
                    self._passed = passed
                    begin = passed.at
                    if passed.line is not None and len(data) - passed.line <= self._limit:
                        begin = passed.line
                break
            yield self._reject(passed, self._at + stop)
            self._passed, begin = None, stop
        self.carry, self._at = data[begin:], self._at + begin
        if self._passed:
            self._passed.at -= begin
            line = self._passed.line
            self._passed.line = None if line is None or line < begin else line - begin

    def _first_look(self, data: bytes, begin: int) -> _Passed:
        """Behind the fields that have ended."""
        fields = self._grammar.fields.match(data, begin)
        assert fields is not None
        lines = sum(1 for _ in _LINE_END.finditer(data, begin, fields.end()))
        return _Passed(self._at + begin, fields.end(), lines)

    def _end(self, data: bytes, passed: _Passed, *, final: bool) -> int | None:
        """Where the row ends; None where that is not known yet."""
        grammar = self._grammar
        while True:
            if passed.state == "before":
                if not final and len(data) - passed.at < len(grammar.quote):
                    return None
                quoted = grammar.quote and data.startswith(grammar.quote, passed.at)
                passed.at += len(grammar.quote) if quoted else 0
                passed.state = "inside" if quoted else "outside"
            tokens = grammar.inside if passed.state == "inside" else grammar.outside
            token = tokens.search(data, passed.at)
            if token is None:
                known = len(data) - max(len(grammar.quote), len(grammar.delimiter)) + 1
                passed.at = max(passed.at, known)
                return len(data) if final else None
            ahead = len(data) - token.end()
            if not final and ahead < max(len(grammar.quote), len(grammar.delimiter)):
                passed.at = token.start()
                return None
            passed.at = token.end()
            if token[0] in (b"\n", b"\r", b"\r\n"):
                passed.lines += 1
                if passed.state == "outside":
                    return token.end()
                passed.line = token.end()
                if passed.stray and self._at + token.end() - passed.begin > self._limit:
                    return token.end()
            elif passed.state == "outside":
                passed.state = "before"
            elif (end := self._quote(data, passed, token.start())) is not None:
                return end

    def _quote(self, data: bytes, passed: _Passed, place: int) -> int | None:
        """A quote in a quoted field: where the row ends, if it shows that."""
        quote, delimiter = self._grammar.quote, self._grammar.delimiter
        line, passed.line = passed.line, None
        behind = passed.at
        if data.startswith(quote, behind):
            passed.at += len(quote)
        elif behind == len(data) or data[behind] in b"\r\n":
            passed.state = "outside"
        elif data.startswith(delimiter, behind):
            if not passed.stray:
                passed.state = "outside"
        elif line is not None and (place == line or data.endswith(delimiter, line, place)):
            return line
        else:
            passed.stray = True
        return None

    def _reject(self, passed: _Passed, end: int) -> Reject:
        size = end - passed.begin
        if passed.state == "outside" and not passed.stray:
            return oversized_record(passed.begin, self._reading)
        fault = "a quote in a quoted field is not doubled" if passed.stray else "an open quote"
        detail = f"{fault}: lost with it are {size} bytes, {passed.lines} line ends among them"
        return Reject("invalid_csv", passed.begin, detail)
