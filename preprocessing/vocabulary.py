"""A tokenizer as the stages and the loader see it: ids, special tokens, digest.

Text is always text: a literal ``[MASK]`` in a document is split like any other word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from preprocessing.storage import InputError, file_digest

TOKENIZER_FILE = "tokenizer.json"
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer with BERT's special tokens.

    Attributes:
        directory: holds ``tokenizer.json`` (and ``vocab.txt``).
        tokenizer: the ``tokenizers`` object.
        digest: of ``tokenizer.json``; token shards record it.
    """

    directory: Path
    tokenizer: Tokenizer
    digest: str

    @staticmethod
    def load(directory: Path) -> Vocabulary:
        """Read the vocabulary of a tokenizer directory.

        Raises:
            InputError: missing or damaged file, or a special token is missing.
        """
        path = directory / TOKENIZER_FILE
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            what = "is missing; run the tokenizer stage" if not path.exists() else f"{error}"
            raise InputError(f"{path}: {what}") from None
        tokenizer.encode_special_tokens = True
        tokenizer.no_padding()
        tokenizer.no_truncation()
        missing = [token for token in SPECIAL_TOKENS if tokenizer.token_to_id(token) is None]
        if missing:
            raise InputError(f"{path}: the vocabulary has no {', '.join(missing)}")
        return Vocabulary(directory, tokenizer, file_digest(path))

    @cached_property
    def size(self) -> int:
        """Number of ids."""
        return int(self.tokenizer.get_vocab_size(with_added_tokens=True))

    @cached_property
    def pad_id(self) -> int:
        """Id of ``[PAD]``."""
        return self._id("[PAD]")

    @cached_property
    def start_id(self) -> int:
        """Id of ``[CLS]``."""
        return self._id("[CLS]")

    @cached_property
    def separator_id(self) -> int:
        """Id of ``[SEP]``."""
        return self._id("[SEP]")

    @cached_property
    def mask_id(self) -> int:
        """Id of ``[MASK]``."""
        return self._id("[MASK]")

    @cached_property
    def continues_word(self) -> NDArray[np.bool_]:
        """``[size]``: True for pieces that continue a word (``##ing``)."""
        table = np.zeros(self.size, dtype=bool)
        for token, index in self.tokenizer.get_vocab(with_added_tokens=True).items():
            table[index] = token.startswith("##") and len(token) > 2
        return table

    @property
    def id_type(self) -> type[np.uint16] | type[np.uint32]:
        """The narrowest integer that holds every id."""
        return np.uint16 if self.size <= 2**16 else np.uint32

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of several texts, without special tokens."""
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int] | NDArray[Any]) -> str:
        """Text of some ids, specials included."""
        return str(self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=False))

    def tokens(self, ids: Sequence[int] | NDArray[Any]) -> list[str]:
        """The pieces themselves."""
        return [str(self.tokenizer.id_to_token(int(i))) for i in ids]

    def _id(self, token: str) -> int:
        index = self.tokenizer.token_to_id(token)
        assert index is not None, token
        return int(index)
