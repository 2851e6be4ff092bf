"""Text in any encoding as blocks of UTF-8.

UTF-8 passes as it is, and what is invalid in it is found record by record. Bytes that another
encoding cannot mean become *marks*, which are invalid UTF-8 too (half surrogate pairs): so one rule
rejects or replaces both. The mark of a bad sequence is U+DC80, with a U+DC81 for each further byte.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

_MARK, _MORE = "\udc80", "\udc81"
_SURROGATES = re.compile("[\ud800-\udfff]")
_ERRORS = "lexmill.mark"

# The longer ones first: one begins with another.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
MARK_BYTES = 4
UNORDERED = ("utf-16", "utf-32")
"""Encodings of which only a byte-order mark says how they are to be read."""


def _mark(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return _MARK + _MORE * (error.end - error.start - 1), error.end


codecs.register_error(_ERRORS, _mark)


def canonical_encoding(name: str) -> str:
    """Python's name of an encoding.

    Raises:
        ValueError: there is none of that name, or it encodes no text.
    """
    try:
        found = codecs.lookup(name)
        if found.name in ("idna", "punycode", "undefined") or found.incrementaldecoder is None:
            raise LookupError
        if not found._is_text_encoding:  # there are codecs of bytes, as base64
            raise LookupError
    except (LookupError, ValueError):
        raise ValueError(
            f"'{name}' is no encoding of text that Python knows; usual ones are utf-8, utf-16, "
            "cp1252, latin-1, gb18030, big5, shift_jis, euc-jp, euc-kr, koi8-r"
        ) from None
    return "utf-8" if found.name == "utf-8-sig" else found.name


def byte_order_mark(head: bytes) -> tuple[str, int] | None:
    """The encoding that a byte-order mark stands for and the mark's length."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    return None


def transcoded(blocks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Blocks of an encoding as blocks of UTF-8 with marks for what it cannot mean."""
    decoder = codecs.getincrementaldecoder(encoding)(_ERRORS)
    for block in blocks:
        if text := decoder.decode(block):
            yield text.encode(errors="surrogatepass")
    if text := decoder.decode(b"", final=True):
        yield text.encode(errors="surrogatepass")


def replace_invalid(data: bytes) -> tuple[bytes, int]:
    """Valid UTF-8 with U+FFFD for each invalid sequence, and the number of bytes these had.

    A mark counts as the bytes that it stands for.
    """
    marked = data.decode(errors="surrogatepass") if _has_marks(data) else ""
    if marked:
        text, more = marked.replace(_MORE, ""), marked.count(_MORE)
        text, count = _SURROGATES.subn("\ufffd", text)
        return text.encode(), count + more
    count = len(_SURROGATES.findall(data.decode(errors="surrogateescape")))
    return data.decode(errors="replace").encode(), count


def _has_marks(data: bytes) -> bool:
    if b"\xed\xb2\x80" not in data:
        return False
    try:
        data.decode(errors="surrogatepass")
    except UnicodeDecodeError:
        return False
    return True
