"""White space in UTF-8 bytes: exactly the characters of ``str.isspace``."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

_SPACE = (
    rb"[\s\x1c-\x1f]|\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f"
    rb"|\xe3\x80\x80"
)
_BLANK = re.compile(rb"(?:" + _SPACE + rb")*+\Z")
_BLANK_SO_FAR = re.compile(
    rb"(?:" + _SPACE + rb")*+(?:\xc2|\xe1\x9a?|\xe2[\x80\x81]?|\xe3\x80?)?\Z"
)
_SPACES = re.compile(rb"(?:" + _SPACE + rb")*+")
_LAST_SPACE = re.compile(rb"(?s:.*)(?:" + _SPACE + rb")")

_MAY_BEGIN_SPACE = np.zeros(256, dtype=bool)
_MAY_BEGIN_SPACE[[9, 10, 11, 12, 13, 28, 29, 30, 31, 32, 0xC2, 0xE1, 0xE2, 0xE3]] = True


def is_blank(data: bytes, begin: int = 0, end: int | None = None) -> bool:
    """Whether nothing but white space lies there."""
    return _BLANK.match(data, begin, len(data) if end is None else end) is not None


def is_blank_so_far(data: bytes, begin: int = 0) -> bool:
    """Whether it is white space, the first bytes of a white-space character at the end included."""
    return _BLANK_SO_FAR.match(data, begin) is not None


def spaces_end(data: bytes, begin: int, end: int) -> int:
    """Where the white space at ``begin`` ends, at most at ``end``."""
    found = _SPACES.match(data, begin, end)
    assert found is not None
    return found.end()


def last_space_end(data: bytes, begin: int, end: int) -> int:
    """The place after the last white space in there; ``begin`` where there is none."""
    found = _LAST_SPACE.match(data, begin, end)
    return found.end() if found else begin


def blank_spans(
    data: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which of the spans ``data[starts[i]:ends[i]]`` are blank. Spans are not empty."""
    first = np.frombuffer(data, dtype=np.uint8)[starts]
    blank = _MAY_BEGIN_SPACE[first]
    # A line that begins with its end is blank; any other that may be is looked at.
    unsure = np.flatnonzero(blank & (first != 10) & (first != 13))
    for index, begin, end in zip(
        unsure.tolist(), starts[unsure].tolist(), ends[unsure].tolist(), strict=True
    ):
        blank[index] = is_blank(data, begin, end)
    return blank
