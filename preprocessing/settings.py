"""The sections of a configuration that preprocessing owns, and where their data lies.

    corpus.directory/
      documents/                       ingest: what was read, every split
      clean/                           deduplicate: without duplicates, validation sets split off
      tokenizers/<tokenizer>/          tokenizer: the vocabulary
      tokens/<tokenizer>/              tokenize: ids with their boundaries
      examples/<tokenizer>/<name>-<digest>/   examples: rows of fixed length

Documents prepared once serve every tokenizer, tokens once every family with that tokenizer.
Examples bear a digest of their settings, so that recipes never overwrite each other's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from configs.schema import ConfigError, Document, config, decode_sections, digest, setting
from preprocessing.corruption import CorruptionConfig
from preprocessing.layouts import LayoutConfig
from preprocessing.readers import Form

Share = Annotated[float, pydantic.Field(ge=0.0, le=1.0)]
Name = Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


@config
class ValidationConfig:
    """A named validation set: a share of the corpus, or files of its own.

    Attributes:
        share: of the documents, chosen by document hash: stable as the corpus grows.
        inputs: files that are never trained on, of the given form.
    """

    share: Annotated[float, pydantic.Field(gt=0.0, lt=0.5)] | None = None
    inputs: tuple[str, ...] = ()
    form: Form = "text"
    text_field: str = "text"

    def __post_init__(self) -> None:
        if (self.share is None) == (not self.inputs):
            raise ValueError("give either a share of the corpus or inputs of its own")


@config
class CorpusConfig:
    """Raw files, and the directory that everything prepared from them goes to.

    ``form`` is ``text`` (documents separated by blank lines), ``lines`` (one a line), ``jsonl`` or
    ``parquet`` (with the text in ``text_field``); ``.gz`` and ``.zst`` files are read as they are.
    """

    directory: Path = setting(resume="free")
    inputs: Annotated[tuple[str, ...], pydantic.Field(min_length=1)]
    form: Form = "text"
    text_field: str = "text"
    validation: Mapping[Name, ValidationConfig] = setting({})
    shard_bytes: Annotated[int, pydantic.Field(ge=1024)] = 128 * 2**20
    allowed_reject_share: Share = setting(0.0, resume="free")
    workers: Annotated[int, pydantic.Field(ge=1)] = setting(1, resume="free")


@config
class WordPieceConfig:
    """Train a WordPiece vocabulary as BERT's (basic tokenizer, ``##`` continuations)."""

    kind: Literal["wordpiece"]
    vocab_size: Annotated[int, pydantic.Field(ge=100)]
    lowercase: bool = True
    min_frequency: Annotated[int, pydantic.Field(ge=1)] = 2
    max_training_bytes: Annotated[int, pydantic.Field(ge=1)] = 2**30
    name: Name | None = None

    @property
    def directory_name(self) -> str:
        """The given name, or one that says what the vocabulary is."""
        cased = "uncased" if self.lowercase else "cased"
        return self.name or f"wordpiece-{self.vocab_size}-{cased}"


@config
class ExistingTokenizerConfig:
    """Adopt a vocabulary: a ``tokenizer.json`` or BERT's ``vocab.txt`` (or a folder with one)."""

    kind: Literal["existing"]
    path: Path
    lowercase: bool = True
    name: Name

    @property
    def directory_name(self) -> str:
        """The given name."""
        return self.name


TokenizerConfig = Annotated[
    WordPieceConfig | ExistingTokenizerConfig, pydantic.Field(discriminator="kind")
]


@config
class ExamplesConfig:
    """How tokens become rows.

    Attributes:
        length: tokens a row, specials included.
        layout: how sequences are cut from documents (``pairs``, ``blocks``).
        pack: several whole sequences a row, instead of one and padding.
        corruption: what is hidden from the model.
        mode: ``dynamic`` corrupts in the loader, anew each epoch; ``static`` writes the corrupted
            rows. Copy c of the one equals epoch c of the other.
        copies: how often the layout is drawn anew (and, in static mode, the corruption).
    """

    length: Annotated[int, pydantic.Field(ge=8, le=65535)]
    layout: LayoutConfig
    pack: bool = False
    corruption: CorruptionConfig
    mode: Literal["dynamic", "static"] = "dynamic"
    copies: Annotated[int, pydantic.Field(ge=1)] = 1


@dataclass(frozen=True)
class Preparation:
    """Everything preprocessing needs to know of a configuration."""

    seed: int
    corpus: CorpusConfig
    tokenizer: WordPieceConfig | ExistingTokenizerConfig
    examples: Mapping[str, ExamplesConfig]

    @property
    def documents_directory(self) -> Path:
        """What ingest writes."""
        return self.corpus.directory / "documents"

    @property
    def clean_directory(self) -> Path:
        """What deduplicate writes."""
        return self.corpus.directory / "clean"

    @property
    def tokenizer_directory(self) -> Path:
        """What the tokenizer stage writes."""
        return self.corpus.directory / "tokenizers" / self.tokenizer.directory_name

    @property
    def tokens_directory(self) -> Path:
        """What tokenize writes."""
        return self.corpus.directory / "tokens" / self.tokenizer.directory_name

    def examples_directory(self, name: str) -> Path:
        """What the examples stage writes for one of the example sets."""
        settings = digest([self.seed, self.examples[name], self.corpus.shard_bytes])[:8]
        tokenizer = self.tokenizer.directory_name
        return self.corpus.directory / "examples" / tokenizer / f"{name}-{settings}"


PREPARATION_SECTIONS: Mapping[str, Any] = {
    "seed": int,
    "corpus": CorpusConfig,
    "tokenizer": TokenizerConfig,
    "examples": dict[Name, ExamplesConfig],
}
"""The sections decoded here, and their types."""


def decode_preparation(document: Document) -> Preparation:
    """Decode the sections that preprocessing owns.

    Raises:
        ConfigError: everything that is wrong with them, at once.
    """
    return prepare(document, decode_sections(document, PREPARATION_SECTIONS))


def prepare(document: Document, sections: Mapping[str, Any]) -> Preparation:
    """Put the decoded sections together.

    Raises:
        ConfigError: what is right by itself does not fit together.
    """
    problems = []
    if not sections["examples"]:
        problems.append("examples: name at least one set of examples")
    validation = sections["corpus"].validation
    if "train" in validation:
        problems.append("corpus.validation.train: 'train' names the training documents")
    heldout = sum(entry.share or 0.0 for entry in validation.values())
    if heldout >= 1:
        problems.append(
            f"corpus.validation: the shares sum up to {heldout:.3g} and leave nothing to train on"
        )
    if problems:
        raise ConfigError([f"{document.name}: {problem}" for problem in problems])
    return Preparation(**{name: sections[name] for name in PREPARATION_SECTIONS})
