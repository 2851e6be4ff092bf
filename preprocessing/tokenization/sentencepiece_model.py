"""What a sentencepiece model says of itself, as far as its encoder has to know.

The library tells pieces and scores but not how it normalises, so the few fields that matter are
read from the file, which is a protocol buffer (``sentencepiece_model.proto``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from preprocessing.tokenizers.models import SPACE, SentencePieceModel

CODE_POINTS = 0x110000
WHITE, COMPLEX, RESERVED = -1, -2, -3
"""What a character may be instead of one that the normaliser maps to one character: it becomes a
space; it needs the rules of the normaliser; it needs the reference for the whole text."""
BIGRAM_BITS = 20
"""Size of the sieve of neighbours: 2**20 bits."""
_NORMAL, _USER_DEFINED, _UNUSED = 1, 4, 5  # types of pieces
_UNIGRAM, _BPE = 1, 2  # types of models
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3  # fields of a model
_UNKNOWN_PENALTY = np.float32(10.0)  # below the worst piece; the library's kUnkPenalty


@dataclass(frozen=True)
class Settings:
    """The model's own fields. A model that has others than these is not taken apart."""

    kind: Literal["unigram", "bpe"]
    byte_fallback: bool
    charsmap: bytes


@dataclass(frozen=True)
class Characters:
    """How single characters are normalised, and between which of them a text may be cut.

    Attributes:
        points: int32 ``[0x110000]``: the one character that a character becomes, or ``WHITE``,
            ``COMPLEX``, ``RESERVED``.
        units: uint32, the rules as a trie over bytes (Darts-clone).
        targets: uint8, their normal forms; each ends with 0.
    """

    points: NDArray[np.int32]
    units: NDArray[np.uint32]
    targets: NDArray[np.uint8]


@dataclass(frozen=True)
class Pieces:
    """The pieces that text may become.

    Attributes:
        points: int32, their code points, one after the other.
        offsets: int64 ``[pieces + 1]``.
        ids: int32 ``[pieces]``.
        scores: float32 ``[vocab_size]``.
        unknown: id of the unknown piece.
        unknown_score: float32, of a character that has no piece.
        bytes_of: int32 ``[256]``, ids of the byte pieces, or empty.
    """

    points: NDArray[np.int32]
    offsets: NDArray[np.int64]
    ids: NDArray[np.int32]
    scores: NDArray[np.float32]
    unknown: int
    unknown_score: np.float32
    bytes_of: NDArray[np.int32]


def read_settings(model: SentencePieceModel) -> Settings | None:
    """The settings of a model whose ways are all known here, else None.

    Not known are user-defined and unused pieces, other models than unigram and BPE, space marks
    at the ends of words, and spaces that are kept, left alone or not put before the text.
    """
    trainer: Mapping[int, int | bytes] = {}
    normalizer: Mapping[int, int | bytes] = {}
    for number, value in _fields(model.serialized):
        if number == _PIECES and isinstance(value, bytes):
            if value[-2:-1] == b"\x18" and dict(_fields(value)).get(3) in (_USER_DEFINED, _UNUSED):
                return None
        elif number == _TRAINER and isinstance(value, bytes):
            trainer = dict(_fields(value))
        elif number == _NORMALIZER and isinstance(value, bytes):
            normalizer = dict(_fields(value))
    kind = trainer.get(3, _UNIGRAM)
    space_after, add_space, drop_spaces, mark_spaces = (
        trainer.get(24, 0),
        normalizer.get(3, 1),
        normalizer.get(4, 1),
        normalizer.get(5, 1),
    )
    if (
        kind not in (_UNIGRAM, _BPE)
        or space_after
        or not (add_space and drop_spaces and mark_spaces)
    ):
        return None
    charsmap = normalizer.get(2, b"")
    return Settings(
        "unigram" if kind == _UNIGRAM else "bpe",
        bool(trainer.get(35, 0)),
        charsmap if isinstance(charsmap, bytes) else b"",
    )


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a protocol buffer's fields; integers, and bytes for all others."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(message):
        tag = varint()
        kind = tag & 7
        if kind == 0:
            yield tag >> 3, varint()
        else:
            size = {1: 8, 5: 4}[kind] if kind != 2 else varint()
            yield tag >> 3, message[place : place + size]
            place += size


def read_pieces(model: SentencePieceModel) -> Pieces | None:
    """The pieces, or None where a space mark stands anywhere but at a piece's beginning.

    None too where a special piece is a single character, which BPE would find in a text.
    """
    processor = model.processor
    everything = list(range(model.size))
    texts: list[str] = processor.id_to_piece(everything)
    special = np.array(processor.is_control(everything)) | processor.is_unknown(everything)
    is_byte = np.array(processor.is_byte(everything))
    ids = np.flatnonzero(~(special | is_byte)).astype(np.int32)
    others = np.setdiff1d(everything, ids)
    if any(SPACE in texts[index][1:] for index in ids) or any(len(texts[i]) == 1 for i in others):
        return None
    own = [texts[index] for index in ids]
    scores = np.array(processor.get_score(everything), np.float32)
    lowest = scores[ids].min(initial=np.float32(np.finfo(np.float32).max))
    bytes_of = [processor.piece_to_id(f"<0x{byte:02X}>") for byte in range(256)]
    return Pieces(
        np.frombuffer("".join(own).encode("utf-32-le"), "<i4").astype(np.int32),
        np.concatenate([[0], np.cumsum([len(piece) for piece in own])]).astype(np.int64),
        ids,
        scores,
        int(processor.unk_id()),
        np.float32(lowest - _UNKNOWN_PENALTY),
        np.array(bytes_of if is_byte.sum() == 256 else [], np.int32),
    )


def read_characters(model: SentencePieceModel, settings: Settings) -> Characters | None:
    """How the model's normaliser treats characters, or None where it could join words.

    None too where a rule makes several spaces in a row, of which the library keeps some.

    The normaliser takes the longest of its rules that fits, or else one character as it is. A rule
    of several characters is entered by its first; the others are *followers*. So a character that
    is no follower, and before none, is treated by itself, and between two such a text may be cut.
    """
    points = np.arange(CODE_POINTS, dtype=np.int32)
    rules: list[tuple[str, str]] = []
    if settings.charsmap:
        normalizer = sentencepiece.SentencePieceNormalizer(model_proto=model.serialized)
        rules = normalizer.decompile()
    points[ord(" ")] = WHITE
    points[ord(SPACE)] = RESERVED
    followers: set[str] = set()
    for source, target in rules:
        if SPACE in target:
            return None
        if len(source) > 1:
            followers.update(source[1:])
        elif target == " ":
            points[ord(source)] = WHITE
        else:
            points[ord(source)] = ord(target) if len(target) == 1 else COMPLEX
    joined = {source[0] for source, _ in rules if len(source) > 1} | followers
    if any(points[ord(character)] == WHITE for character in joined) or any(
        "  " in target for _, target in rules
    ):
        return None
    points[[ord(character) for character in followers]] = COMPLEX
    points[0] = RESERVED  # the library's trie of rules ends its strings by it
    size = int.from_bytes(settings.charsmap[:4], "little")  # of the trie; the targets follow
    units = np.frombuffer(settings.charsmap[4 : 4 + size], "<u4").astype(np.uint32)
    targets = np.frombuffer(settings.charsmap[4 + size :], np.uint8)
    return Characters(points, units, targets.copy())


def read_neighbours(
    pieces: Pieces, codes: NDArray[np.int32]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The pairs of characters that stand side by side in some piece.

    Returns:
        By codes of characters: uint8 ``[128 * 128]``, 1 where no piece has these two side by side;
        and a sieve, uint8 ``[2**17]``, in which a bit is set where some piece has such a pair.
        Pairs that share a bit are taken for neighbours too.
    """
    begins = np.zeros(len(pieces.points) + 1, bool)
    begins[pieces.offsets] = True
    coded, inside = codes[pieces.points].astype(np.int64), ~begins[1:-1]
    left, right = coded[:-1][inside], coded[1:][inside]
    cuts = np.ones(128 * 128, np.uint8)
    frequent = (left < 128) & (right < 128)
    cuts[left[frequent] * 128 + right[frequent]] = 0
    sieve = np.zeros(1 << BIGRAM_BITS, bool)
    sieve[pair_hash(left.astype(np.uint64), right.astype(np.uint64))] = True
    return cuts, np.packbits(sieve, bitorder="little")


def pair_hash(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The bit of the sieve that stands for two neighbours."""
    with np.errstate(over="ignore"):
        mixed = (left << np.uint64(21) | right) * np.uint64(0x9E3779B97F4A7C15)
    return np.asarray(mixed >> np.uint64(64 - BIGRAM_BITS), np.uint64)
