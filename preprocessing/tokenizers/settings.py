"""The ``tokenizer`` section of a configuration: one class a kind of vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import pydantic

from configs.schema import config, digest, setting
from preprocessing.tokenizers.specials import (
    SPECIAL_TOKENS,
    Role,
    check_special_tokens,
    sentinel_name,
)

Name = Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Positive = Annotated[int, pydantic.Field(ge=1)]


@config
class SamplingConfig:
    """How much of each language a vocabulary is trained on.

    Attributes:
        alpha: a language with the share p of the bytes gets a share proportional to p**alpha:
            1 leaves the shares as they are, 0 makes them equal, 0.3 is what XLM-R used (Conneau
            et al., 2020, section 3.1). Documents of a language that gets more than it has are
            taken several times.
    """

    alpha: Annotated[float, pydantic.Field(ge=0.0, le=1.0)] = 1.0


@config
class TrainingConfig:
    """What every trained vocabulary needs to know.

    Attributes:
        max_training_bytes: of text; a corpus that is larger is sampled by documents. The trainers
            hold the distinct words of this much text in memory, sentencepiece all of the text.
        sampling: languages against each other.
        special_tokens: in the order of their ids from 0 on, each written ``[...]`` or ``<...>``.
            Usual names play the roles of padding, unknown text, start, separator and mask
            (RoBERTa: ``["<s>", "<pad>", "</s>", "<unk>", "<mask>"]``); others are kept for later
            use. One must be padding, and one stand for what is unknown unless nothing is.
        sentinels: special tokens ``<extra_id_0>``, ``<extra_id_1>``, ... that stand for removed
            spans (T5 has 100), behind the other special tokens; vocab_size counts them.
        name: of the vocabulary's directory; left out, one that says what it is.
        sources: names in ``corpus.sources``; the vocabulary is trained on their documents alone,
            and stays the same when others come to the corpus. None takes everything.
    """

    max_training_bytes: Positive = 2**30
    sampling: SamplingConfig = SamplingConfig()
    name: Name | None = None
    sources: Annotated[tuple[Name, ...], pydantic.Field(min_length=1)] | None = setting(
        None, added=True
    )
    special_tokens: tuple[str, ...] = setting(SPECIAL_TOKENS, added=True)
    sentinels: Annotated[int, pydantic.Field(ge=0, le=4096)] = setting(0, added=True)

    @property
    def reserved_tokens(self) -> tuple[str, ...]:
        """Special tokens and sentinels, in the order of their ids from 0 on."""
        sentinels = (sentinel_name(number) for number in range(self.sentinels))
        return (*self.special_tokens, *sentinels)

    def _named(self, usual: str) -> str:
        """The given name, or the usual one of such a vocabulary."""
        if self.name:
            return self.name
        others = self.special_tokens != SPECIAL_TOKENS
        specials = f"-specials-{digest(self.special_tokens)[:8]}" if others else ""
        return usual + specials + (f"-{self.sentinels}-sentinels" if self.sentinels else "")

    def _check_specials(self, vocab_size: int, least: int, *needed: Role) -> None:
        """The needed roles are played, and so many pieces, five of them special, have room."""
        check_special_tokens(self.special_tokens, needed)
        least += max(0, len(self.reserved_tokens) - len(SPECIAL_TOKENS))
        if vocab_size < least:
            raise ValueError(
                f"with {len(self.reserved_tokens)} special tokens, vocab_size must be at least "
                f"{least}"
            )


@config
class WordPieceConfig(TrainingConfig):
    """Train a WordPiece vocabulary as BERT's (basic tokenizer, ``##`` continuations)."""

    kind: Literal["wordpiece"]
    vocab_size: Annotated[int, pydantic.Field(ge=100)]
    lowercase: bool = True
    min_frequency: Positive = 2

    def __post_init__(self) -> None:
        self._check_specials(self.vocab_size, 100, "pad", "unknown")

    @property
    def directory_name(self) -> str:
        """The given name, or one that says what the vocabulary is."""
        cased = "uncased" if self.lowercase else "cased"
        return self._named(f"wordpiece-{self.vocab_size}-{cased}")


@config
class SentencePieceConfig(TrainingConfig):
    """Train a vocabulary with the sentencepiece library: a unigram model, or BPE merges.

    Attributes:
        vocab_size: with specials (and the 256 bytes); a small corpus may give fewer pieces.
        character_coverage: share of the characters, by occurrence, that get a piece of their own.
        byte_fallback: a character without a piece becomes its bytes, not ``[UNK]``.
        normalization: ``nmt_nfkc``, the same with case folding (``nmt_nfkc_cf``), or ``identity``.
            Under ``identity`` only the space U+0020 parts words: a line end is a character.
        split_digits: every digit is a piece.
        max_sentencepiece_length: characters a piece.
    """

    kind: Literal["unigram", "sentencepiece_bpe"]
    vocab_size: Annotated[int, pydantic.Field(ge=20)]
    character_coverage: Annotated[float, pydantic.Field(ge=0.98, le=1.0)] = 0.9995
    byte_fallback: bool = False
    normalization: Literal["nmt_nfkc", "nmt_nfkc_cf", "identity"] = "nmt_nfkc"
    split_digits: bool = False
    max_sentencepiece_length: Annotated[int, pydantic.Field(ge=1, le=512)] = 16

    def __post_init__(self) -> None:
        if self.byte_fallback and self.vocab_size < 300:
            raise ValueError("with byte_fallback, vocab_size must be at least 300")
        self._check_specials(self.vocab_size, 300 if self.byte_fallback else 20, "pad", "unknown")

    @property
    def directory_name(self) -> str:
        """The given name, or one that says what the vocabulary is."""
        cased = "uncased" if self.normalization.endswith("_cf") else "cased"
        return self._named(f"{self.kind.replace('_', '-')}-{self.vocab_size}-{cased}")


@config
class ByteLevelBPEConfig(TrainingConfig):
    """Train byte-level BPE as GPT-2's: all 256 bytes, so nothing is unknown."""

    kind: Literal["byte_level_bpe"]
    vocab_size: Annotated[int, pydantic.Field(ge=261)]
    min_frequency: Positive = 2

    def __post_init__(self) -> None:
        self._check_specials(self.vocab_size, 261, "pad")

    @property
    def directory_name(self) -> str:
        """The given name, or one that says what the vocabulary is."""
        return self._named(f"byte-level-bpe-{self.vocab_size}")


@config
class CharactersConfig(TrainingConfig):
    """Each character is a token: the commonest ones, until they cover enough of the text.

    Attributes:
        vocab_size: at most, with specials.
        coverage: share of the characters, by occurrence, that the vocabulary is to know.
        lowercase: fold case first.
        whitespace: ``drop`` it (a word then shows in the word starts alone), or make every run of
            it one token, a space.
    """

    kind: Literal["characters"]
    vocab_size: Annotated[int, pydantic.Field(ge=6)]
    coverage: Annotated[float, pydantic.Field(gt=0.0, le=1.0)] = 0.9999
    lowercase: bool = False
    whitespace: Literal["drop", "token"] = "drop"

    def __post_init__(self) -> None:
        self._check_specials(self.vocab_size, 6, "pad", "unknown")

    @property
    def directory_name(self) -> str:
        """The given name, or one that says what the vocabulary is."""
        cased = "uncased" if self.lowercase else "cased"
        return self._named(f"characters-{self.vocab_size}-{cased}")


@config
class ExistingTokenizerConfig:
    """Adopt a vocabulary.

    Attributes:
        path: a ``tokenizer.json``, BERT's ``vocab.txt``, a sentencepiece ``.model``, or a folder
            that holds one.
        lowercase: whether a ``vocab.txt`` is of lowercased text; the other forms say so themselves.
        specials: which token plays a role, where it bears none of the usual names
            (``{separator: "<|endoftext|>"}``).
    """

    kind: Literal["existing"]
    path: Path
    lowercase: bool = True
    specials: Mapping[Role, str] = setting({})
    name: Name

    @property
    def directory_name(self) -> str:
        """The given name."""
        return self.name


TrainedTokenizerConfig = (
    WordPieceConfig | SentencePieceConfig | ByteLevelBPEConfig | CharactersConfig
)
TokenizerConfig = Annotated[
    TrainedTokenizerConfig | ExistingTokenizerConfig, pydantic.Field(discriminator="kind")
]
