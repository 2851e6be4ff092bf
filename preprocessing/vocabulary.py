"""A tokenizer as the stages and the loader see it: ids, special tokens, digest.

Text is always text: a literal ``[MASK]`` in a document is split like any other word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from configs.schema import digest
from preprocessing.storage import InputError, file_digest
from preprocessing.tokenization.base import Encoder
from preprocessing.tokenizers.models import (
    SENTENCEPIECE_FILE,
    TOKENIZER_FILE,
    AnyModel,
    SentencePieceModel,
    load_model,
    model_file,
)
from preprocessing.tokenizers.specials import (
    SPECIAL_TOKENS,
    USUAL_NAMES,
    Role,
    find_sentinels,
    recognise,
)

__all__ = ["SENTENCEPIECE_FILE", "SPECIALS_FILE", "SPECIAL_TOKENS", "TOKENIZER_FILE", "Vocabulary"]

SPECIALS_FILE = "specials.json"
"""The roles of tokens with unusual names; absent where all names are usual ones."""


@dataclass(frozen=True)
class Vocabulary:
    """A vocabulary of any kind, with its special tokens.

    A role that no token plays is an error where it is needed first, not before.

    Attributes:
        directory: holds ``tokenizer.json`` or ``tokenizer.model``.
        model: the reference, the library's own object.
        names: the token of each role that one plays.
        digest: of the vocabulary file and the roles; token shards record it.
    """

    directory: Path
    model: AnyModel
    names: Mapping[Role, str]
    digest: str

    @staticmethod
    def load(directory: Path) -> Vocabulary:
        """Read the vocabulary of a tokenizer directory.

        Raises:
            InputError: missing or damaged file.
        """
        path = model_file(directory)
        identity = file_digest(path)
        model = load_model(path, identity)
        given: Mapping[Role, str] = {}
        specials = directory / SPECIALS_FILE
        if specials.is_file():
            given = json.loads(specials.read_text(encoding="utf-8"))
            identity = digest([identity, given])
        try:
            names = recognise(model.token_to_id, given)
        except ValueError as error:
            raise InputError(f"{path}: {error}") from None
        return Vocabulary(directory, model, names, identity)

    @property
    def tokenizer(self) -> Tokenizer:
        """The ``tokenizers`` object.

        Raises:
            InputError: this is a sentencepiece model, which has none.
        """
        if isinstance(self.model, SentencePieceModel):
            raise InputError(
                f"{self.directory / SENTENCEPIECE_FILE}: a sentencepiece model, where a "
                f"{TOKENIZER_FILE} is needed; use another kind of vocabulary"
            )
        return self.model.tokenizer

    @cached_property
    def size(self) -> int:
        """Number of ids."""
        return self.model.size

    @cached_property
    def pad_id(self) -> int:
        """Id of the token that fills rows."""
        return self._id("pad")

    @cached_property
    def start_id(self) -> int:
        """Id of the token before a sequence."""
        return self._id("start")

    @cached_property
    def separator_id(self) -> int:
        """Id of the token after a segment."""
        return self._id("separator")

    @cached_property
    def mask_id(self) -> int:
        """Id of the token that hides others."""
        return self._id("mask")

    @cached_property
    def unknown_id(self) -> int | None:
        """Id of the token for what has no piece; None where all text has pieces."""
        return self._id("unknown") if "unknown" in self.names else None

    @cached_property
    def sentinel_ids(self) -> tuple[int, ...]:
        """Ids of the tokens that stand for removed spans, the first one first."""
        return tuple(find_sentinels(self.model.token_to_id).values())

    @cached_property
    def continues_word(self) -> NDArray[np.bool_]:
        """``[size]``: True for tokens that by their looks continue a word (``##ing``).

        What begins a word in a text is told by an encoder's ``word_starts``.
        """
        return self.model.continues_word()

    @property
    def id_type(self) -> type[np.uint16] | type[np.uint32]:
        """The narrowest integer that holds every id."""
        return np.uint16 if self.size <= 2**16 else np.uint32

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of several texts, without special tokens: the reference of every encoder."""
        return self.model.encode(texts)

    def encoder(self) -> Encoder:
        """The fastest encoder whose ids are sure to be those of :meth:`encode`; a new one."""
        # Imported here, since compiled code takes its time and readers of tokens need none.
        if isinstance(self.model, SentencePieceModel):
            from preprocessing.tokenization.sentencepiece import sentencepiece_encoder

            return sentencepiece_encoder(self.model)
        from preprocessing.tokenization.choice import encoder_of

        return encoder_of(self.model.tokenizer)

    def decode(self, ids: Sequence[int] | NDArray[Any]) -> str:
        """Text of some ids, specials included."""
        return self.model.decode([int(i) for i in ids])

    def tokens(self, ids: Sequence[int] | NDArray[Any]) -> list[str]:
        """The pieces themselves."""
        return [self.model.id_to_token(int(i)) for i in ids]

    def id_of(self, role: Role) -> int | None:
        """Id of the token that plays a role; None where none does."""
        return self._id(role) if role in self.names else None

    def _id(self, role: Role) -> int:
        if role not in self.names:
            raise InputError(
                f"{self.directory}: the vocabulary has no {USUAL_NAMES[role][0]}; if another of "
                f"its tokens plays this role, name it in tokenizer.specials.{role}"
            )
        index = self.model.token_to_id(self.names[role])
        assert index is not None, role
        return index
