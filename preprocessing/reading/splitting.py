"""Cutting a document that is too large: at a line end, else at white space, never in a character.

>>> list(pieces(b"one two three", 6))
[(0, 4), (4, 8), (8, 13)]
"""

from __future__ import annotations

from collections.abc import Iterator

from preprocessing.reading.blanks import last_space_end

Piece = tuple[int, int]
"""``(begin, end)``."""


def cut(data: bytes, begin: int, limit: int) -> tuple[int, bool]:
    """Where the piece that begins there ends, and whether a line ends with it.

    At most ``limit`` bytes are taken, and there are more: what has to be known of ``data`` ends
    at ``begin + limit + 1``, so that the pieces do not depend on how much of it has been read.
    """
    end = begin + limit
    line_end = max(data.rfind(b"\n", begin, end), data.rfind(b"\r", begin, end))
    if line_end == end - 1 and data[end - 1 : end + 1] == b"\r\n":
        # Half of a line end: the one before it will do.
        line_end = max(data.rfind(b"\n", begin, end - 1), data.rfind(b"\r", begin, end - 1))
    if line_end > begin:
        return line_end + 1, True
    space = last_space_end(data, begin, end)
    if space > begin and data[space - 1 : space + 1] != b"\r\n":
        return space, False
    while end > begin + limit - 3 and data[end] & 0xC0 == 0x80:
        end -= 1
    return end, False


def pieces(data: bytes, limit: int, begin: int = 0, end: int | None = None) -> Iterator[Piece]:
    """The pieces of a whole document, line ends at their ends included."""
    end = len(data) if end is None else end
    while end - begin > limit:
        stop, _ = cut(data, begin, limit)
        yield begin, stop
        begin = stop
    yield begin, end
