"""Megatron-LM's indexed datasets: token ids in ``.bin``, where they are in ``.idx``.

Ids are no text. The tokenizer that made them turns them into text again, without its special
tokens; what a lossy tokenizer lost (case, spaces) stays lost.

The index (little endian): ``MMIDIDX\\0\\0``, version 1 (int64), the kind of the ids (int8), the
numbers of sequences and of document borders (int64), then of every sequence its length (int32) and
its place in ``.bin`` in bytes (int64), then the borders: the sequence that each document begins
with, and the end.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.reading.base import BUFFER_BYTES, DamagedError, Found
from preprocessing.reading.fields import Rows
from preprocessing.reading.settings import ReadingConfig
from preprocessing.reading.sources import Slice, open_bytes, shown
from preprocessing.storage import InputError

_MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<QBQQ")
_KINDS = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 8: np.uint16}


@dataclass(frozen=True)
class Index:
    """An index.

    Attributes:
        kind: of the ids.
        lengths: int32 ``[sequences]``, in ids.
        places: int64 ``[sequences]``, in bytes of ``.bin``.
        borders: int64 ``[documents + 1]``, in sequences.
    """

    kind: np.dtype[Any]
    lengths: NDArray[np.int32]
    places: NDArray[np.int64]
    borders: NDArray[np.int64]


def index_url(url: str) -> str:
    """The index that belongs to a ``.bin`` file."""
    return url.removesuffix(".bin") + ".idx"


def read_index(url: str) -> Index:
    """Read the index of a ``.bin`` file.

    Raises:
        InputError: there is none, or it is none that this program knows.
    """
    name = shown(index_url(url))
    with open_bytes(index_url(url)) as file:
        data = file.read()
    head = len(_MAGIC) + _HEADER.size
    if len(data) < head or not data.startswith(_MAGIC):
        raise InputError(f"{name}: is no index of an indexed dataset (MMIDIDX) as Megatron has it")
    version, code, sequences, documents = _HEADER.unpack_from(data, len(_MAGIC))
    if version != 1 or code not in _KINDS:
        raise InputError(f"{name}: version {version} with ids of kind {code} is not known")
    if len(data) < head + 12 * sequences + 8 * documents:
        raise InputError(f"{name}: ends too early; copy it again")
    return Index(
        np.dtype(_KINDS[code]),
        np.frombuffer(data, "<i4", sequences, head),
        np.frombuffer(data, "<i8", sequences, head + 4 * sequences),
        np.frombuffer(data, "<i8", documents, head + 12 * sequences),
    )


def token_documents(file: IO[bytes], piece: Slice, reading: ReadingConfig) -> Iterator[Found]:
    """Documents whose first byte lies in the slice; offsets are bytes of ``.bin``.

    Raises:
        InputError: the index or the tokenizer is missing or none.
        DamagedError: the ids end before the index says.
    """
    assert reading.megatron_tokenizer is not None
    tokenizer = load_tokenizer(reading.megatron_tokenizer)
    index = read_index(piece.source.url)
    places = np.append(index.places, piece.source.size)
    begins = places[index.borders[:-1]]
    rows = Rows()
    for document in np.flatnonzero((begins >= piece.start) & (begins < piece.stop)).tolist():
        first, last = index.borders[document : document + 2].tolist()
        ids: list[int] = []
        for place, length in zip(
            index.places[first:last].tolist(), index.lengths[first:last].tolist(), strict=True
        ):
            file.seek(place)
            data = file.read(length * index.kind.itemsize)
            if len(data) < length * index.kind.itemsize:
                yield rows.take()
                raise DamagedError(place, "the ids end before the index says")
            ids += np.frombuffer(data, index.kind.newbyteorder("<")).tolist()
        rows.add(tokenizer.decode(ids, skip_special_tokens=True).encode(), int(begins[document]))
        if rows.size >= BUFFER_BYTES:
            yield rows.take()
    yield rows.take()


@cache
def load_tokenizer(path: Path) -> Any:
    """A ``tokenizer.json``.

    Raises:
        InputError: it cannot be read.
    """
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(
            f"{path}: is no tokenizer.json ({error}); set megatron_tokenizer"
        ) from None


def identify(url: str, tokenizer: Path) -> str:
    """What else than ``.bin`` decides the documents: a digest of the index and the tokenizer."""
    state = hashlib.blake2b(digest_size=16)
    with open_bytes(index_url(url)) as file:
        state.update(file.read())
    load_tokenizer(tokenizer)
    state.update(tokenizer.read_bytes())
    return state.hexdigest()
