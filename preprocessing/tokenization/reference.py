"""The library itself, one whole text after the other: what every other encoder must agree with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from preprocessing.texts import Texts
from preprocessing.tokenization.base import Encoded

_WHITE_SPACE = "".join(
    character
    for character in map(chr, range(0x3001))
    if character.isspace() and character not in "\x1c\x1d\x1e\x1f"  # Unicode's, not Python's
)
_BYTES_AT_ONCE = 2**20
"""Of text given to the library; its encodings take some hundred bytes a token."""


@dataclass(frozen=True)
class Tokens:
    """Tokens of one text.

    Attributes:
        ids: uint32 ``[tokens]``.
        starts_word: bool ``[tokens]``.
        begins: int32 ``[tokens]``, the byte of the text each begins at, leading white space that
            belongs to the token left out.
        stops: int32 ``[tokens]``, the byte it ends before.
    """

    ids: NDArray[np.uint32]
    starts_word: NDArray[np.bool_]
    begins: NDArray[np.int32]
    stops: NDArray[np.int32]


class Reference:
    """Any ``tokenizers`` pipeline: the :class:`~preprocessing.tokenization.base.Encoder` of last
    resort.

    A word begins where the pipeline's pre-tokenizer splits; in WordPiece that is where no ``##``
    stands.

    Args:
        tokenizer: special tokens in a text must be text to it (``encode_special_tokens``).
        id_type: of the ids.
        continues_word: bool ``[vocab_size]``, pieces that continue a word, where the pieces say
            it; else None.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        id_type: type[np.uint16] | type[np.uint32],
        continues_word: NDArray[np.bool_] | None = None,
    ) -> None:
        assert tokenizer.encode_special_tokens
        self._tokenizer = tokenizer
        self._id_type = id_type
        self._continues_word = continues_word

    def tokens(self, texts: Sequence[bytes]) -> Iterator[Tokens]:
        """Encode UTF-8 texts, some at a time."""
        batch: list[bytes] = []
        size = 0
        for text in texts:
            if batch and size + len(text) > _BYTES_AT_ONCE:
                yield from self._encode(batch)
                batch, size = [], 0
            batch.append(text)
            size += len(text)
        yield from self._encode(batch)

    def _encode(self, texts: Sequence[bytes]) -> Iterator[Tokens]:
        encodings = self._tokenizer.encode_batch(
            [text.decode() for text in texts], add_special_tokens=False
        )
        return map(self._tokens, texts, encodings)

    def _tokens(self, text: bytes, encoding: Encoding) -> Tokens:
        ids = np.array(encoding.ids, np.uint32)
        if self._continues_word is not None:
            starts_word = ~self._continues_word[ids]
        else:
            words = np.array([-1, *(-1 if w is None else w for w in encoding.word_ids)], np.int64)
            starts_word = words[1:] != words[:-1]
        raw = np.frombuffer(text, np.uint8)
        place = np.append(np.flatnonzero(raw & 0xC0 != 0x80), len(text))  # of each character
        spans = place[np.array(encoding.offsets, np.int64).reshape(-1, 2)]
        begins = [
            stop - len(visible) if (visible := _visible(text[begin:stop])) else begin
            for begin, stop in spans.tolist()
        ]
        return Tokens(ids, starts_word, np.array(begins, np.int32), spans[:, 1].astype(np.int32))

    def encode(self, texts: Texts, marks: NDArray[np.int64]) -> Encoded:
        """As the :class:`~preprocessing.tokenization.base.Encoder` protocol says."""
        marks = np.asarray(marks, np.int64)
        owner = np.searchsorted(texts.offsets[1:-1], marks, side="right")
        bounds = np.searchsorted(owner, np.arange(len(texts) + 1))
        raw = [
            bytes(texts.data[start:stop])
            for start, stop in zip(texts.offsets[:-1], texts.offsets[1:], strict=True)
        ]
        offsets = np.zeros(len(texts) + 1, np.int64)
        places, exact = np.zeros(len(marks), np.int64), np.zeros(len(marks), np.bool_)
        ids: list[NDArray[Any]] = [np.zeros(0, self._id_type)]
        starts: list[NDArray[np.bool_]] = [np.zeros(0, np.bool_)]
        for index, own in enumerate(self.tokens(raw)):
            ids.append(own.ids.astype(self._id_type))
            starts.append(own.starts_word)
            offsets[index + 1] = offsets[index] + len(own.ids)
            part = slice(bounds[index], bounds[index + 1])
            inside = marks[part] - texts.offsets[index]
            first = np.searchsorted(np.maximum.accumulate(own.begins), inside)
            places[part] = offsets[index] + first
            ended = np.append(0, np.maximum.accumulate(own.stops))[first] <= inside
            exact[part] = ended
        return Encoded(np.concatenate(ids), offsets, np.concatenate(starts), places, exact)


def _visible(token: bytes) -> bytes:
    """A token without the white space it begins with."""
    return token.decode().lstrip(_WHITE_SPACE).encode()
