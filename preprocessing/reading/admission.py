"""What becomes a document: the one place that judges texts, whatever form they came from.

Most batches have nothing wrong with them, and that shows in a few passes over all of their bytes;
only the others are looked at text by text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from preprocessing.reading.base import Documents, Found, Reject, Split
from preprocessing.reading.blanks import blank_spans, is_blank
from preprocessing.reading.encodings import replace_invalid
from preprocessing.reading.settings import ReadingConfig
from preprocessing.reading.splitting import pieces


def admit(found: Found, reading: ReadingConfig) -> Iterator[Documents | Reject | Split]:
    """Documents, and what is none."""
    if not len(found.texts):
        return
    sound = _sound(found.texts, reading.max_document_bytes)
    if sound is not None:
        yield Documents(sound, found.offsets, found.languages, found.licences, found.replaced_bytes)
        return
    kept = _Kept(replaced=found.replaced_bytes)
    for index, (data, offset) in enumerate(
        zip(found.texts.to_pylist(), found.offsets.tolist(), strict=True)
    ):
        replaced = 0
        fault = _invalid(data)
        if fault and reading.invalid_bytes == "replace":
            data, replaced = replace_invalid(data)
        elif fault:
            yield Reject("invalid_bytes", offset, fault)
            continue
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if is_blank(data):
            yield Reject("empty_text", offset, "the text is empty or white space")
            continue
        parts = [data]
        if len(data) > reading.max_document_bytes:
            if reading.oversized == "reject":
                yield oversized(offset, reading.max_document_bytes)
                continue
            yield Split(offset)
            places = pieces(data, reading.max_document_bytes)
            parts = [data[begin:end].rstrip(b"\n") for begin, end in places]
            parts = [part for part in parts if not is_blank(part)]
        kept.add(parts, offset, replaced, _at(found.languages, index), _at(found.licences, index))
    if kept.texts:
        yield kept.documents()


def oversized(offset: int, limit: int) -> Reject:
    """The reject of a document that is too large."""
    detail = (
        f"more than max_document_bytes ({limit}); is the form right? Raise it, or split such "
        "documents (oversized: split)"
    )
    return Reject("oversized", offset, detail)


def oversized_record(offset: int, reading: ReadingConfig) -> Reject:
    """The reject of a record that is too large to be parsed, and so to be split."""
    detail = (
        f"a record of more than {reading.max_record_bytes} bytes, twice max_document_bytes "
        f"({reading.max_document_bytes}); is the form right? Such records are never split: raise "
        "max_document_bytes"
    )
    return Reject("oversized", offset, detail)


@dataclass
class _Kept:
    texts: list[bytes] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    languages: list[str | None] = field(default_factory=list)
    licences: list[str | None] = field(default_factory=list)
    replaced: int = 0

    def add(
        self,
        parts: Sequence[bytes],
        offset: int,
        replaced: int,
        language: str | None,
        licence: str | None,
    ) -> None:
        self.texts += parts
        self.offsets += [offset] * len(parts)
        self.languages += [language] * len(parts)
        self.licences += [licence] * len(parts)
        self.replaced += replaced

    def documents(self) -> Documents:
        return Documents(
            pa.array(self.texts, pa.large_binary()).cast(pa.large_string()),
            np.array(self.offsets, dtype=np.int64),
            self.languages,
            self.licences,
            self.replaced,
        )


def _at(values: Sequence[str | None] | None, index: int) -> str | None:
    return None if values is None else values[index]


def _sound(texts: pa.LargeBinaryArray, limit: int) -> pa.LargeStringArray | None:
    """The texts as they are, where every one of them can stay so."""
    _, places, buffer = texts.buffers()
    offsets = np.frombuffer(places, dtype=np.int64)[texts.offset :][: len(texts) + 1]
    sizes = np.diff(offsets)
    if not sizes.min() or sizes.max() > limit:
        return None
    data = np.frombuffer(buffer, dtype=np.uint8)[: offsets[-1]]
    if (data[offsets[0] :] == 13).any():
        return None
    if blank_spans(buffer, offsets[:-1], offsets[1:]).any():
        return None
    try:
        return texts.cast(pa.large_string())
    except pa.ArrowInvalid:
        return None


def _invalid(data: bytes) -> str | None:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"byte 0x{data[error.start]:02x} at {error.start} in the record: {error.reason}"
    return None
