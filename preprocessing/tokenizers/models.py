"""The two libraries that vocabularies belong to, behind one face."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import sentencepiece
from numpy.typing import NDArray
from tokenizers import Tokenizer

from preprocessing.storage import InputError

TOKENIZER_FILE = "tokenizer.json"
SENTENCEPIECE_FILE = "tokenizer.model"
SPACE = "▁"
"""How sentencepiece writes a space (U+2581)."""
_BYTE_LEVEL_SPACES = ("Ġ", "Ċ", "ĉ", "č")  # byte-level BPE's space, line feed, tab, return


class Model(Protocol):
    """What a library knows of a vocabulary."""

    @property
    def size(self) -> int:
        """Number of ids."""

    def token_to_id(self, token: str) -> int | None:
        """The id of a token, None where there is none such."""

    def id_to_token(self, index: int) -> str:
        """The token of an id."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The reference: ids of whole texts, without special tokens; text is always text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text, specials by their names."""

    def continues_word(self) -> NDArray[np.bool_]:
        """``[size]``: True for tokens that by their looks continue a word."""


class TokenizersModel:
    """A ``tokenizer.json``."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.encode_special_tokens = True
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.tokenizer = tokenizer

    @staticmethod
    def load(path: Path) -> TokenizersModel:
        """Read the file.

        Raises:
            InputError: not a tokenizer.
        """
        try:
            return TokenizersModel(Tokenizer.from_buffer(path.read_bytes()))
        except Exception as error:  # the library raises bare Exception
            raise InputError(f"{path}: {error}") from None

    @property
    def size(self) -> int:
        """Number of ids."""
        return int(self.tokenizer.get_vocab_size(with_added_tokens=True))

    def token_to_id(self, token: str) -> int | None:
        """The id of a token, None where there is none such."""
        index: int | None = self.tokenizer.token_to_id(token)
        return index

    def id_to_token(self, index: int) -> str:
        """The token of an id."""
        return str(self.tokenizer.id_to_token(index))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of whole texts."""
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """Text, specials by their names."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def continues_word(self) -> NDArray[np.bool_]:
        """By the prefix of WordPiece, or by the space that other kinds write before words."""
        plain = json.loads(self.tokenizer.to_str())
        special = {token["id"] for token in plain["added_tokens"] if token["special"]}
        splitters = json.dumps(plain["pre_tokenizer"])
        table = np.zeros(self.size, dtype=bool)
        for token, index in self.tokenizer.get_vocab(with_added_tokens=True).items():
            if index in special:
                continue
            if plain["model"]["type"] == "WordPiece":
                prefix = plain["model"]["continuing_subword_prefix"]
                table[index] = token.startswith(prefix) and len(token) > len(prefix)
            elif '"ByteLevel"' in splitters:
                table[index] = not token.startswith(_BYTE_LEVEL_SPACES)
            elif '"Metaspace"' in splitters:
                table[index] = not token.startswith(SPACE)
        return table


class SentencePieceModel:
    """A sentencepiece ``.model``."""

    def __init__(self, serialized: bytes) -> None:
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=serialized)
        self.serialized = serialized

    @staticmethod
    def load(path: Path) -> SentencePieceModel:
        """Read the file.

        Raises:
            InputError: not a sentencepiece model.
        """
        try:
            return SentencePieceModel(path.read_bytes())
        except (RuntimeError, ValueError, TypeError) as error:
            raise InputError(f"{path}: not a sentencepiece model: {error}") from None

    @property
    def size(self) -> int:
        """Number of ids."""
        return int(self.processor.get_piece_size())

    def token_to_id(self, token: str) -> int | None:
        """The id of a token, None where there is none such."""
        index = int(self.processor.piece_to_id(token))  # of the unknown piece, where there is none
        return index if 0 <= index < self.size and self.id_to_token(index) == token else None

    def id_to_token(self, index: int) -> str:
        """The token of an id."""
        return str(self.processor.id_to_piece(index))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of whole texts."""
        ids: list[list[int]] = self.processor.encode(list(texts), out_type=int, num_threads=1)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The library leaves control pieces out; here they stand by their names."""
        parts: list[str] = []
        pending: list[int] = []
        for index in [*ids, None]:
            if index is not None and not self.processor.is_control(index):
                pending.append(index)
                continue
            if pending:
                parts.append(str(self.processor.decode(pending)))
            pending = []
            if index is not None:
                parts.append(self.id_to_token(index))
        return " ".join(parts)

    def continues_word(self) -> NDArray[np.bool_]:
        """True for pieces without a space before them."""
        everything = list(range(self.size))
        pieces: list[str] = self.processor.id_to_piece(everything)
        special = [
            index == self.processor.unk_id() or self.processor.is_control(index)
            for index in everything
        ]
        return np.array(
            [
                not (own or piece.startswith(SPACE))
                for piece, own in zip(pieces, special, strict=True)
            ],
            dtype=bool,
        )


AnyModel = TokenizersModel | SentencePieceModel


def model_file(directory: Path) -> Path:
    """The vocabulary file of a tokenizer directory.

    Raises:
        InputError: there is none.
    """
    for name in (SENTENCEPIECE_FILE, TOKENIZER_FILE):
        path = directory / name
        if path.is_file():
            return path
    raise InputError(f"{path}: is missing; run the tokenizer stage")


@lru_cache(maxsize=2)
def load_model(path: Path, digest: str) -> AnyModel:
    """The model in a vocabulary file of a digest; those that look into it share the object.

    Raises:
        InputError: it is damaged.
    """
    kind = SentencePieceModel if path.name == SENTENCEPIECE_FILE else TokenizersModel
    return kind.load(path)


def pieces_of(model: AnyModel) -> list[str]:
    """All tokens in the order of their ids."""
    return [model.id_to_token(index) for index in range(model.size)]


def listing(model: AnyModel) -> str | None:
    """``vocab.txt``, for models that are a list of tokens and nothing more; None for others."""
    if isinstance(model, SentencePieceModel):
        return None
    plain: Any = json.loads(model.tokenizer.to_str())
    if plain["model"]["type"] not in ("WordPiece", "WordLevel"):
        return None
    return "".join(f"{piece}\n" for piece in pieces_of(model))
