"""Lines and runs of lines in blocks of bytes: the records of ``text``, ``lines`` and ``jsonl``.

A buffer of about a megabyte is looked at as a whole: where its lines end, which of them are blank,
and so where records begin and end; only what no line end has been seen of is carried into the next
one. A line ends with ``\\n``, ``\\r\\n`` or ``\\r``; it is blank where all of it is white space.

Large files are read in slices, independently of each other. A record belongs to the slice that its
first byte lies in, so that any cutting gives the same records in the same order:

    b"one\\ntwo\\n\\nthree\\n"  cut at 5:  slice [0, 5) reads "one\\ntwo", slice [5, 15) "three"

A record may be larger than memory. As soon as more than ``limit`` bytes of it have been seen it is
passed over (one :class:`Oversized`), or given in pieces.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray

from preprocessing.reading.base import BUFFER_BYTES, gathered
from preprocessing.reading.blanks import blank_spans, is_blank, is_blank_so_far, spaces_end
from preprocessing.reading.splitting import cut, pieces

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Spans:
    """Whole records in one buffer: ``data[starts[i]:ends[i]]``, without their last line end.

    Attributes:
        offset: of the buffer in the text.
    """

    data: bytes
    offset: int
    starts: Places
    ends: Places


@dataclass(frozen=True)
class Oversized:
    """A record of more than the limit; its pieces, where there are any, follow."""

    offset: int


@dataclass(frozen=True)
class Range:
    """Which records are wanted, and where the text begins that tells.

    Attributes:
        start: records that begin here or later
        stop: and before this (None: up to the end).
        origin: offset of the first byte that will be given.
        in_text: that byte lies in a line that is not blank.
    """

    start: int
    stop: int | None
    origin: int
    in_text: bool = False


def line_start(file: IO[bytes], start: int) -> tuple[int, bool]:
    """Where to begin so that every line from ``start`` on is known for what it is.

    That is where the line that holds byte ``start - 1`` begins, or some place in it behind which
    it has text; the second value says which.
    """
    if start <= 1:
        return 0, False
    end = start - 1
    file.seek(end - 1)
    if file.read(2) == b"\r\n":
        end -= 1
    while end > 0:
        begin = max(0, end - BUFFER_BYTES)
        file.seek(begin)
        block = file.read(end - begin)
        last = max(block.rfind(b"\n"), block.rfind(b"\r"))
        if last >= 0:
            return begin + last + 1, False
        # The first bytes may belong to a character that begins before.
        inside = next((i for i in range(3) if block[i : i + 1] < b"\x80" or block[i] >= 0xC0), 0)
        if begin and not is_blank_so_far(block, inside):
            return begin, True
        end = begin
    return 0, False


def scan(
    blocks: Iterator[bytes],
    wanted: Range,
    *,
    grouped: bool,
    limit: int,
    split: bool,
) -> Iterator[Spans | Oversized]:
    """The records of a range, in order.

    Args:
        blocks: the text from ``wanted.origin`` on.
        wanted: whose records.
        grouped: a record is a run of lines that are not blank; otherwise each of these.
        limit: bytes of the largest record.
        split: give larger ones in pieces.
    """
    scanner = _Scanner(wanted, grouped, limit, split)
    for data in gathered(blocks, lambda: len(scanner.carry)):
        yield from scanner.step(data, final=False)
        if scanner.done:
            return
    yield from scanner.step(b"", final=True)


def bounded_lines(
    blocks: Iterator[bytes], offset: int, limit: int
) -> Iterator[tuple[int, bytes | None]]:
    """Every line with its end and its offset; None for one of more than ``limit`` bytes."""
    carry, dropped = b"", 0

    def carried() -> int:
        return len(carry)

    for block in gathered(blocks, carried):
        data = carry + block
        begin = 0
        for end in line_ends(data, final=False).tolist():
            large = dropped or end - begin > limit
            yield offset, None if large else data[begin:end]
            offset += dropped + end - begin
            begin, dropped = end, 0
        carry = data[begin:]
        if len(carry) > limit or dropped:
            kept = int(carry.endswith(b"\r"))
            dropped += len(carry) - kept
            carry = carry[len(carry) - kept :]
    if carry or dropped:
        yield offset, None if dropped or len(carry) > limit else carry


class _Scanner:
    """What is known between two buffers.

    ``carry`` are the bytes from the beginning of what has not ended yet. ``_in_text`` says that
    the line they begin in is not blank, whatever they are. ``_open`` says of a record that began
    before them whether its rest is wanted or passed over.
    """

    def __init__(self, wanted: Range, grouped: bool, limit: int, split: bool) -> None:
        self._start = wanted.start
        self._stop = wanted.stop
        self._grouped = grouped
        self._limit = limit
        self._split = split
        self.carry = b""
        self.done = False
        self._at = wanted.origin
        self._in_text = wanted.in_text
        self._open: Literal["wanted", "passed over"] | None = None
        if wanted.in_text:
            self._open = "passed over"

    def step(self, block: bytes, *, final: bool) -> Iterator[Spans | Oversized]:
        """What has ended with these bytes."""
        data = self.carry + block
        ends = self._with_long_blanks(data, line_ends(data, final=final))
        starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: len(ends)]
        text = ~blank_spans(data, starts, ends)
        text[:1] |= self._in_text
        tail = int(ends[-1]) if len(ends) else 0
        rest, first = tail, 0
        if self._open:
            # Lines up to `first` belong to the record that is open.
            first = _first_blank(text) if self._grouped else min(1, len(text))
            ended = final or (first < len(text) if self._grouped else first > 0)
            if ended and self._open == "wanted" and first:
                yield from self._pieces(data, 0, _content_end(data, int(ends[first - 1])))
            if ended:
                self._open = None
            elif self._open == "wanted":
                rest = 0
        if not self._open:
            runs, unfinished = self._runs(text, first, final=final)
            if unfinished is not None:
                rest = int(starts[unfinished])
            yield from self._records(data, starts[runs[0]], _content_ends(data, ends[runs[1]]))
        if not final:
            yield from self._keep(data, rest, tail)

    def _runs(
        self, text: NDArray[np.bool_], first: int, *, final: bool
    ) -> tuple[tuple[Places, Places], int | None]:
        """First and last lines of the records that have ended; the first of one that has not."""
        if not self._grouped:
            lines = np.flatnonzero(text[first:]) + first
            return (lines, lines), None
        edges = np.diff(np.concatenate([[False], text[first:], [False]]).astype(np.int8))
        begins, ends = np.flatnonzero(edges == 1) + first, np.flatnonzero(edges == -1) + first - 1
        if final or not len(begins) or ends[-1] < len(text) - 1:
            return (begins, ends), None
        return (begins[:-1], ends[:-1]), int(begins[-1])

    def _records(self, data: bytes, begins: Places, ends: Places) -> Iterator[Spans | Oversized]:
        """Of the records that have ended those that are wanted."""
        wanted = begins + self._at >= self._start
        if self._stop is not None:
            wanted &= begins + self._at < self._stop
        begins, ends = begins[wanted], ends[wanted]
        done = 0
        for index in np.flatnonzero(ends - begins > self._limit).tolist():
            if index > done:
                yield Spans(data, self._at, begins[done:index], ends[done:index])
            yield Oversized(self._at + int(begins[index]))
            if self._split:
                yield from self._pieces(data, int(begins[index]), int(ends[index]))
            done = index + 1
        if len(begins) > done:
            yield Spans(data, self._at, begins[done:], ends[done:])

    def _pieces(self, data: bytes, begin: int, end: int) -> Iterator[Spans]:
        """A record in pieces, those that are blank left out."""
        for at, stop in pieces(data, self._limit, begin, end):
            if not is_blank(data, at, stop):
                content = _content_end(data, stop)
                yield Spans(data, self._at, np.array([at]), np.array([content]))

    def _keep(self, data: bytes, rest: int, tail: int) -> Iterator[Spans | Oversized]:
        """Carry what has not ended, or as little of it as can be."""
        known = tail == 0 and self._in_text
        undecided = not known and self._may_be_blank(data, tail)
        end = _content_end(data, tail) if undecided and rest < tail else len(data)
        end -= not undecided and data.endswith(b"\r")
        begun = end > rest and not (undecided and rest == tail)
        in_text = self._in_text and rest == 0
        place = self._at + rest
        wanted = self._start <= place and (self._stop is None or place < self._stop)
        if begun and not self._open and not wanted:
            self._open = "passed over"
        elif begun and self._open != "passed over" and end - rest > self._limit + 4:
            if not self._open:
                yield Oversized(place)
            self._open = "wanted" if self._split else "passed over"
            while self._split and end - rest > self._limit:
                stop, line_ended = cut(data, rest, self._limit)
                yield from self._pieces(data, rest, stop)
                rest, in_text = stop, not line_ended
        if self._open == "passed over":
            in_text = known or (tail < len(data) and not undecided)
            rest = tail if undecided else len(data) - data.endswith(b"\r")
        self.carry = data[rest:]
        self._at += rest
        self._in_text = in_text
        self.done = self._stop is not None and self._open != "wanted" and self._at >= self._stop

    def _may_be_blank(self, data: bytes, tail: int) -> bool:
        """Whether a line that has not ended may be blank, or count as a blank one and another."""
        if is_blank_so_far(data, tail):
            return True
        few = tail + self._limit - 3
        return len(data) < tail + self._limit + 4 and spaces_end(data, tail, few + 3) >= few

    def _with_long_blanks(self, data: bytes, ends: Places) -> Places:
        """White space of the limit's size at the start of a line counts as a line of its own.

        Otherwise gigabytes of it would have to be kept until it is known what they are.
        """
        borders = [0, *ends.tolist(), len(data)] if len(data) >= self._limit else [0]
        more: list[int] = []
        tail = borders[-2] if len(borders) > 1 else 0
        for begin, end in itertools.pairwise(borders):
            while end - begin >= self._limit and not (begin == 0 and self._in_text):
                stop = spaces_end(data, begin, min(end, begin + self._limit + 4))
                known = end <= tail or end - begin >= self._limit + 4
                if stop - begin < self._limit or stop == end or not known:
                    break
                more.append(stop)
                begin = stop
        return np.union1d(ends, np.array(more, dtype=np.int64)) if more else ends


def _first_blank(text: NDArray[np.bool_]) -> int:
    return len(text) if text.all() else int(np.argmin(text))


def line_ends(data: bytes, *, final: bool) -> Places:
    """The places after the line ends; at the end of the text also after a line without one."""
    values = np.frombuffer(data, dtype=np.uint8)
    ended = values == 10
    if b"\r" in data:
        returns = values == 13
        # Half of a line end is none, and whether the last byte is half of one is not known yet.
        returns[:-1] &= ~ended[1:]
        returns[-1] &= final
        ended |= returns
    ends = np.flatnonzero(ended) + 1
    if final and len(data) and not ended[-1]:
        ends = np.append(ends, len(data))
    return ends


def _content_end(data: bytes, end: int) -> int:
    end -= data[end - 1 : end] == b"\n"
    return end - (data[end - 1 : end] == b"\r")


def _content_ends(data: bytes, ends: Places) -> Places:
    values = np.frombuffer(data, dtype=np.uint8)
    ends = ends - (values[ends - 1] == 10)
    ends -= values[ends - 1] == 13
    return ends
