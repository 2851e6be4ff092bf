"""The bytes of raw files of many forms."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from numbered_texts import en


def twice(compress: Callable[[bytes], bytes], data: bytes) -> bytes:
    """An archive of two members (frames, streams), neither of which ends with a document."""
    return compress(data[: len(data) // 2]) + compress(data[len(data) // 2 :])


def zstd(data: bytes) -> bytes:
    """One frame."""
    return zstandard.ZstdCompressor().compress(data)


def blocks(texts: Sequence[str]) -> bytes:
    """The form ``text``."""
    return "".join(text + "\n\n" for text in texts).encode()


def jsonl(values: Sequence[Any]) -> bytes:
    """A value a line."""
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values).encode()


def labelled(texts: Sequence[str], language: str, terms: str | None = None) -> list[Any]:
    """Objects with a language and a licence."""
    return [{"body": {"text": text}, "lang": language, "terms": terms} for text in texts]


def parquet(texts: Sequence[str | None]) -> bytes:
    """Four rows a group."""
    sink = io.BytesIO()
    languages = [None if text is None else "en" for text in texts]
    table = pa.table({"content": pa.array(texts, pa.string()), "lang": pa.array(languages)})
    pq.write_table(table, sink, row_group_size=4)
    return sink.getvalue()


def arrow(texts: Sequence[str | None], *, stream: bool) -> bytes:
    """Three rows a batch."""
    sink = io.BytesIO()
    table = pa.table({"text": pa.array(texts, pa.large_string())})
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    return sink.getvalue()


def articles(texts: Sequence[str]) -> str:
    """WikiExtractor's blocks."""
    return "".join(
        f'<doc id="{number}" url="https://wiki.example/{number}" title="T">\n{text}\n</doc>\n'
        for number, text in enumerate(texts)
    )


@cache
def word_list() -> list[str]:
    """Every word that Megatron's ids stand for."""
    return ["[PAD]", *sorted({word for text in en(600, 610) for word in text.split()})]


def megatron(texts: Sequence[str]) -> dict[str, bytes]:
    """Ids of :func:`word_list`, and their index."""
    ids = {word: number for number, word in enumerate(word_list())}
    rows = [np.array([ids[word] for word in text.split()], "<u2") for text in texts]
    places = np.cumsum([0, *(row.nbytes for row in rows)])[:-1].astype("<i8")
    index = [
        b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, len(rows), len(rows) + 1),
        np.array([len(row) for row in rows], "<i4").tobytes(),
        places.tobytes(),
        np.arange(len(rows) + 1, dtype="<i8").tobytes(),
    ]
    return {"a.bin": b"".join(row.tobytes() for row in rows), "a.idx": b"".join(index)}


def cut(data: bytes, count: int) -> bytes:
    """All but the last bytes."""
    return data[:-count]
