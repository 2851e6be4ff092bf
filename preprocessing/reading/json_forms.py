"""JSON: an object or a string a line, or one array of them, however many gigabytes on one line.

The array is not parsed as a whole. Its elements are found by what brackets and strings say, then
parsed one by one, so that a bad one costs no other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from preprocessing.reading.admission import oversized_record
from preprocessing.reading.base import Found, Reject, gathered
from preprocessing.reading.blanks import spaces_end
from preprocessing.reading.encodings import replace_invalid
from preprocessing.reading.fields import Rows, add_value
from preprocessing.reading.lines import Spans
from preprocessing.reading.settings import ReadingConfig

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+'
_TOKEN = re.compile(_STRING + rb'(?P<closed>"?)|[\[\]{},]', re.DOTALL)

# Numbers are never text, and long ones are no reason to lose the text beside them.
_parse = json.JSONDecoder(parse_int=float).decode


def json_lines(spans: Spans, reading: ReadingConfig) -> Iterator[Found | Reject]:
    """The records of some lines."""
    rows = Rows()
    for begin, end in zip(spans.starts.tolist(), spans.ends.tolist(), strict=True):
        reject = _add(spans.data[begin:end], spans.offset + begin, reading, rows)
        if reject:
            yield reject
    yield rows.take()


def _add(data: bytes, offset: int, reading: ReadingConfig, rows: Rows) -> Reject | None:
    replaced = 0
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        if reading.invalid_bytes == "reject":
            place = f"byte 0x{data[error.start]:02x} at {error.start} in the record"
            return Reject("invalid_bytes", offset, f"{place}: {error.reason}")
        data, replaced = replace_invalid(data)
        text = data.decode()
    try:
        value = _parse(text)
        _refuse_duplicates(text, value, reading)
    except (ValueError, RecursionError) as error:
        return Reject("invalid_json", offset, str(error)[:300])
    rows.replaced += replaced
    return add_value(value, offset, reading, rows)


def _refuse_duplicates(text: str, value: Any, reading: ReadingConfig) -> None:
    """Of two texts of one name in one object one would be lost.

    Raises:
        ValueError: there are such two.
    """
    keys = {part for name in reading.text_fields for part in (name, *name.split("."))}
    if not isinstance(value, dict) or all(text.count(f'"{key}"') < 2 for key in keys):
        return

    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs if name in keys]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the key '{name}' stands in it more than once")
        return dict(pairs)

    json.JSONDecoder(object_pairs_hook=check, parse_int=float).decode(text)


def json_array(
    blocks: Iterator[bytes], offset: int, reading: ReadingConfig
) -> Iterator[Found | Reject]:
    """The elements of one array.

    Args:
        blocks: the text from ``offset`` on.
        offset: of the first byte.
        reading: whose fields are meant.
    """
    array = _Array(offset, reading)
    for block in gathered(blocks, lambda: len(array.carry)):
        yield from array.step(block)
    yield from array.finish()


class _Array:
    """Where in the array the next buffer begins.

    ``carry`` are the bytes from the beginning of the current element. Of these the first ``seen``
    have been looked at, and ``depth`` brackets are open there.
    """

    def __init__(self, offset: int, reading: ReadingConfig) -> None:
        self.carry = b""
        self._at = offset
        self._reading = reading
        self._limit = reading.max_record_bytes
        self._place = "before"
        self._seen = self._depth = self._count = 0
        self._too_large = False

    def step(self, block: bytes) -> Iterator[Found | Reject]:
        data, rows = self.carry + block, Rows()
        begin = 0
        if self._place == "before":
            begin = spaces_end(data, 0, len(data))
            if begin < len(data):
                self._place = "inside" if data[begin : begin + 1] == b"[" else "after"
                if self._place == "after":
                    detail = "no array: it begins with " + repr(data[begin : begin + 20])[1:]
                    yield Reject("invalid_json", self._at + begin, detail)
                    self._place = "nowhere"
                begin += self._place == "inside"
        if self._place == "inside":
            position = begin + self._seen
            while token := _TOKEN.search(data, position):
                if token["closed"] == b"":
                    break
                position = token.end()
                sign = data[token.start()]
                if sign in b"[{":
                    self._depth += 1
                elif sign in b"]}" and self._depth:
                    self._depth -= 1
                elif sign in b",]" and not self._depth:
                    last = sign == ord("]")
                    if reject := self._element(data, begin, token.start(), rows, last=last):
                        yield reject
                    begin = position
                    if last:
                        self._place = "after"
                        break
            else:
                position = len(data)
            self._seen = position - begin
        if rows.texts:
            yield rows.take()
        if self._place == "after":
            begin += spaces_end(data, begin, len(data)) - begin
            if begin < len(data):
                detail = "more after the end of the array: " + repr(data[begin : begin + 20])[1:]
                yield Reject("invalid_json", self._at + begin, detail)
                self._place = "nowhere"
        if self._place == "nowhere":
            begin = len(data)
        self.carry, self._at = data[begin:], self._at + begin
        if len(self.carry) > self._limit:
            if not self._too_large:
                begin = spaces_end(self.carry, 0, len(self.carry))
                yield oversized_record(self._at + begin, self._reading)
            self._too_large = True
            self._forget()

    def _element(
        self, data: bytes, begin: int, end: int, rows: Rows, *, last: bool
    ) -> Reject | None:
        """One element has ended."""
        self._count += 1
        if self._too_large:
            self._too_large = False
            return None
        start = spaces_end(data, begin, end)
        if end - begin > self._limit:
            return oversized_record(self._at + start, self._reading)
        if start < end:
            return _add(data[start:end].rstrip(), self._at + start, self._reading, rows)
        if last and self._count == 1:
            return None
        return Reject("invalid_json", self._at + begin, "nothing where an element should be")

    def _forget(self) -> None:
        """Keep of an element that is too large only what tells where it ends."""
        rest = self.carry[self._seen :]
        if rest:  # an open string
            escapes = len(rest) - len(rest.rstrip(b"\\"))
            rest = b'"' + b"\\" * (escapes % 2)
        self._at += len(self.carry) - len(rest)
        self.carry, self._seen = rest, 0

    def finish(self) -> Iterator[Reject]:
        """What is wrong with where it ends."""
        if self._place == "inside":
            yield Reject("invalid_json", self._at, "the array ends in the middle")
