"""SentencePiece at dictionary speed: the ids of the library, word by word.

Why the ids of a text are those of its words, one after the other:

- The normaliser turns white space into single spaces, puts one before the text, and writes them as
  ``▁`` (U+2581). No rule of it reaches over white space, so words are normalised one by one.
- No piece has a ``▁`` but at its beginning. So no piece reaches over the beginning of a word:
  merges of BPE never do, and every segmentation of a unigram model passes through there.
- Within words the same holds between two characters that stand side by side in no piece. There
  words are cut into chunks: for BPE wherever it can be done; for a unigram model before ASCII,
  mostly punctuation, and in very long words.

Chunks are remembered, but not the long words of a unigram model: most words of Chinese and Japanese
never come again, and the search itself, compiled over a double array, is faster than the library's.

The library sums the scores of a unigram model in 32 bits from the beginning of the text, so
rounding may decide between two segmentations of a word whose scores are nearly equal. With E the
error of one sum, at most 2**-24 of the largest magnitude M met in the chunk, a chunk of L
characters takes at most L sums, and the library takes the best segmentation for certain where it
leads by more than 2 L E: it values the best one at no less than its score - L E, and the one it
takes at no more than that one's score + L E. Each chunk is remembered with the largest sum of
scores before it for which that holds. Where it does not, the library's own search is repeated to
the last bit from the sum that has been reached, which is added up here as the library does; so it
is where the sum may fall below -100,000 within a chunk, since there the library begins it anew.
That was found by experiment with the versions named here; under another one, all goes through it.

What is left to the library, text by text: NUL; ``▁`` itself, where the model's normaliser does not
make a space of it; and words of more than 4096 bytes (for BPE 512).
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from preprocessing.texts import Texts
from preprocessing.tokenization.base import Encoded, Encoder
from preprocessing.tokenization.sentencepiece_chunks import (
    BEGUN,
    BYTE,
    DONE,
    FULL,
    MARK,
    MORE_ROOM,
    REFERENCE,
    STATE_SIZE,
    TEXT,
    TOKENS,
    encode_chunks,
)
from preprocessing.tokenization.sentencepiece_memory import LONGEST, ChunkMemory, Scratch
from preprocessing.tokenization.sentencepiece_model import (
    Characters,
    Pieces,
    Settings,
    read_characters,
    read_neighbours,
    read_pieces,
    read_settings,
)
from preprocessing.tokenization.sentencepiece_trie import double_array
from preprocessing.tokenizers.models import SPACE, SentencePieceModel

VERSIONS = ("0.2.3",)
"""Of the library, whose sums are known."""
_LONGEST_MERGED = 512
_log = logging.getLogger(__name__)


def sentencepiece_encoder(model: SentencePieceModel) -> Encoder:
    """The fastest encoder whose ids are sure to be those of the library."""
    settings = read_settings(model)
    pieces = read_pieces(model) if settings else None
    characters = read_characters(model, settings) if settings and pieces else None
    reason = "its pieces or its treatment of spaces are unusual"
    if settings and pieces and characters:
        if settings.kind == "bpe":
            return SentencePieceEncoder(model, settings, pieces, characters)
        if sentencepiece.__version__ in VERSIONS and pieces.scores[pieces.ids].max(initial=0) <= 0:
            return SentencePieceEncoder(model, settings, pieces, characters)
        reason = f"it has positive scores, or version {sentencepiece.__version__} is not known here"
    _log.warning("every text goes through the sentencepiece library, and slower: %s", reason)
    return SentencePieceReference(model)


class SentencePieceReference:
    """The library itself, one whole text after the other."""

    def __init__(self, model: SentencePieceModel) -> None:
        self._processor = model.processor
        self._id_type = np.uint16 if model.size <= 2**16 else np.uint32

    def encode_text(
        self, raw: bytes
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_], NDArray[np.int64]]:
        """Ids, word starts, and the bytes at which the tokens begin, of one text.

        A token begins behind the white space that the library counts to it.
        """
        found = self._processor.encode(raw, out_type="offset_mapping")
        begins = np.array(
            [stop - len(raw[begin:stop].decode().lstrip().encode())
             for begin, stop in found["offsets"]],
            np.int64,
        )  # fmt: skip
        space = SPACE.encode()
        starts = [piece.startswith(space) for piece in found["pieces"]]
        return np.array(found["ids"], np.int32), np.array(starts, np.bool_), begins

    def encode(self, texts: Texts, marks: NDArray[np.int64]) -> Encoded:
        """As the :class:`~preprocessing.tokenization.base.Encoder` protocol says."""
        offsets = np.zeros(len(texts) + 1, np.int64)
        places, exact = np.zeros(len(marks), np.int64), np.zeros(len(marks), np.bool_)
        ids: list[NDArray[Any]] = [np.zeros(0, self._id_type)]
        word_starts = [np.zeros(0, np.bool_)]
        bounds = _marks_by_text(texts, marks)
        for index in range(len(texts)):
            raw = bytes(texts.data[texts.offsets[index] : texts.offsets[index + 1]])
            own, starts, begins = self.encode_text(raw)
            part = slice(bounds[index], bounds[index + 1])
            first, exact[part] = _place_marks(marks[part] - texts.offsets[index], begins, raw)
            places[part] = offsets[index] + first
            offsets[index + 1] = offsets[index] + len(own)
            ids.append(own.astype(self._id_type))
            word_starts.append(starts)
        return Encoded(np.concatenate(ids), offsets, np.concatenate(word_starts), places, exact)


class SentencePieceEncoder:
    """A model whose words can be encoded one by one; see :func:`sentencepiece_encoder`.

    Args:
        limit: chunks that are remembered; at the limit all are forgotten. At the default of 2**18
            they take 25 MB.
    """

    def __init__(
        self,
        model: SentencePieceModel,
        settings: Settings,
        pieces: Pieces,
        characters: Characters,
        limit: int = 2**18,
    ) -> None:
        self._reference = SentencePieceReference(model)
        self._id_type = np.uint16 if model.size <= 2**16 else np.uint32
        self._unigram = settings.kind == "unigram"
        self._pieces = pieces
        self._units, self._targets = characters.units, characters.targets
        self._bytes_of = pieces.bytes_of if settings.byte_fallback else pieces.bytes_of[:0]
        self._trie = double_array(pieces)
        codes = self._trie.codes
        self._forms = np.where(characters.points >= 0, codes[characters.points], characters.points)
        self._neighbours = read_neighbours(pieces, codes)
        self._largest = float(max(abs(pieces.scores).max(initial=0), abs(pieces.unknown_score)))
        self._longest = LONGEST if self._unigram else _LONGEST_MERGED
        self._memory = ChunkMemory.of(limit)
        self._scratch = Scratch.of()

    def encode(self, texts: Texts, marks: NDArray[np.int64]) -> Encoded:
        """As the :class:`~preprocessing.tokenization.base.Encoder` protocol says."""
        place = np.zeros(STATE_SIZE, np.int64)
        place[BYTE] = texts.offsets[0]
        total = np.zeros(1, np.float32)
        room = (int(texts.offsets[-1] - texts.offsets[0]) >> 1) + 1024
        ids, starts = np.empty(room, np.int32), np.empty(room, np.bool_)
        offsets = np.zeros(len(texts) + 1, np.int64)
        marks = np.ascontiguousarray(marks, np.int64)
        at, exact = np.zeros(len(marks), np.int64), np.zeros(len(marks), np.bool_)
        while True:
            reason = encode_chunks(
                texts.data, texts.offsets, place, total, self._unigram, self._longest,
                self._forms, *self._neighbours, self._units, self._targets,
                *self._trie.arrays, self._pieces.unknown, self._pieces.unknown_score,
                self._largest, self._bytes_of,
                *self._memory.arrays, *self._scratch.arrays,
                ids, starts, offsets, marks, at, exact,
            )  # fmt: skip
            if reason == DONE:
                break
            if reason == MORE_ROOM:
                ids, starts = _grown(ids), _grown(starts)
            elif reason == FULL:
                self._memory.clear()
            elif reason == REFERENCE:
                index = int(place[TEXT])
                own, own_starts = self._whole_text(texts, index, place, marks, at, exact)
                first = int(place[TOKENS])
                while len(ids) < first + len(own):
                    ids, starts = _grown(ids), _grown(starts)
                ids[first : first + len(own)] = own
                starts[first : first + len(own)] = own_starts
                place[TOKENS] += len(own)
                offsets[index + 1] = place[TOKENS]
                place[TEXT] += 1
                place[BYTE] = texts.offsets[index + 1]
                place[BEGUN] = 0
        count = int(place[TOKENS])
        return Encoded(ids[:count].astype(self._id_type), offsets, starts[:count].copy(), at, exact)

    def _whole_text(
        self,
        texts: Texts,
        index: int,
        place: NDArray[np.int64],
        marks: NDArray[np.int64],
        at: NDArray[np.int64],
        exact: NDArray[np.bool_],
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """A text by the library; what had been done of it is forgotten."""
        start, stop = int(texts.offsets[index]), int(texts.offsets[index + 1])
        raw = bytes(texts.data[start:stop])
        own, starts, begins = self._reference.encode_text(raw)
        first = int(place[MARK])
        last = len(marks) if index == len(texts) - 1 else int(np.searchsorted(marks, stop))
        found, sure = _place_marks(marks[first:last] - start, begins, raw)
        at[first:last] = place[TOKENS] + found
        exact[first:last] = sure
        place[MARK] = last
        return own, starts


def _grown(array: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([array, np.empty(len(array), array.dtype)])


def _marks_by_text(texts: Texts, marks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the marks of each text begin; a mark at a border belongs to the later text."""
    bounds = np.searchsorted(marks, texts.offsets)
    bounds[-1] = len(marks)
    return bounds


def _place_marks(
    marks: NDArray[np.int64], begins: NDArray[np.int64], raw: bytes
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The first token at or after each mark, and whether it is sure to begin there."""
    begins = np.maximum.accumulate(begins) if len(begins) else begins
    first = np.searchsorted(begins, marks)
    exact = np.append(begins, len(raw))[first] == marks
    return first, exact
