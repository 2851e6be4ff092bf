"""The sections of a configuration that preprocessing owns, and where their data lies.

    corpus.directory/
      documents/                       ingest: what was read, every split
      filtered/                        clean: what the filters left, where there are any
      duplicates/                      deduplicate: what documents are compared by, what repeats
      clean/                           deduplicate: without duplicates, validation sets split off
      tokenizers/<tokenizer>/          tokenizer: the vocabulary
      tokens/<tokenizer>/              tokenize: ids with their boundaries
      counts/<tokenizer>/<table>-<digest>/    examples: what each token shard adds to a table
      tables/<tokenizer>/<table>-<digest>/    examples: what corruptions look up, where they do
      examples/<tokenizer>/<name>-<digest>/   examples: rows of fixed length

Documents prepared once serve every tokenizer, tokens once every family with that tokenizer.
Examples bear a digest of their settings, so that recipes never overwrite each other's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from configs.schema import ConfigError, Document, config, decode_sections, digest, setting
from preprocessing.annotations import AnnotationsConfig
from preprocessing.cleaning import CleaningConfig
from preprocessing.corruption import CorruptionConfig
from preprocessing.duplicates import DeduplicationConfig
from preprocessing.executors import ExecutorConfig, LocalConfig
from preprocessing.layouts import LayoutConfig
from preprocessing.layouts.base import PAIR, FrameName
from preprocessing.places import to_place
from preprocessing.reading.settings import ReadingConfig, SourceConfig
from preprocessing.tables.base import Wanted
from preprocessing.tokenizers import TokenizerConfig

Share = Annotated[float, pydantic.Field(ge=0.0, le=1.0)]
Directory = Annotated[Path, pydantic.PlainValidator(to_place)]
Name = Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


@config
class ValidationConfig(ReadingConfig):
    """A named validation set: a share of the corpus, or files of its own.

    Attributes:
        share: of the documents, chosen by document hash: stable as the corpus grows.
        inputs: files that are never trained on, of the given form.
    """

    share: Annotated[float, pydantic.Field(gt=0.0, lt=0.5)] | None = None
    inputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.share is None) == (not self.inputs):
            raise ValueError("give either a share of the corpus or inputs of its own")


@config
class CorpusConfig(ReadingConfig):
    """Raw files, what is done to them, and the directory that everything made of them goes to.

    Attributes:
        inputs: files of one form; the keys of reading beside it say how they are read.
        sources: several origins by name, each with its own inputs, form, language and licence.
        clean: filters and repairs; left out, documents stay as they were read.
        annotations: what the token shards know of words, phrases and entities.
        directory: a path of this machine or the URL of an object store (``s3://bucket/folder``).
        workers: processes, or tasks of a Ray cluster, at a time.
        retries: how often a task is tried again after its worker died or the network failed.
        check_disk: refuse to start a stage whose output will not find room.
    """

    directory: Directory = setting(resume="free")
    inputs: tuple[str, ...] = ()
    sources: Mapping[Name, SourceConfig] = setting({})
    validation: Mapping[Name, ValidationConfig] = setting({})
    clean: CleaningConfig | None = None
    deduplicate: DeduplicationConfig = DeduplicationConfig()
    annotations: AnnotationsConfig = AnnotationsConfig()
    shard_bytes: Annotated[int, pydantic.Field(ge=1024)] = 128 * 2**20
    allowed_reject_share: Share = setting(0.0, resume="free")
    executor: ExecutorConfig = setting(LocalConfig(), resume="free")
    workers: Annotated[int, pydantic.Field(ge=1)] = setting(1, resume="free")
    retries: Annotated[int, pydantic.Field(ge=0)] = setting(2, resume="free")
    check_disk: bool = setting(True, resume="free")

    def __post_init__(self) -> None:
        if bool(self.inputs) == bool(self.sources):
            raise ValueError("give either inputs or named sources")

    def training_sources(self) -> Mapping[str, SourceConfig]:
        """The training files by the name of their source; ``""`` where they have none."""
        if self.sources:
            return self.sources
        reading = {field.name: getattr(self, field.name) for field in fields(ReadingConfig)}
        return {"": SourceConfig(inputs=self.inputs, **reading)}


@config
class ExamplesConfig:
    """How tokens become rows.

    Attributes:
        length: tokens a row, specials included.
        layout: how sequences are cut from documents (:mod:`.layouts`).
        pack: several whole sequences a row, instead of one and padding.
        corruption: what is hidden from the model.
        mode: ``dynamic`` corrupts in the loader, anew each epoch; ``static`` writes the corrupted
            rows. Copy c of the one equals epoch c of the other.
        copies: how often the layout is drawn anew (and, in static mode, the corruption).
        frame: the special tokens around the pieces of a sequence (:mod:`.layouts.base`).
        decoder_length: tokens a row of the decoder's, where the corruption feeds one.
        buckets: lengths of shorter rows, ascending divisors of ``length``: a sequence stands alone
            in the shortest row it fits, instead of packing. ``length // b`` rows of a bucket b are
            as many tokens as one row of ``length``; the decoder's are shorter in proportion.
        sources: names in ``corpus.sources``; the set is made of their documents alone, and stays
            the same when others come to the corpus. None takes everything.
    """

    length: Annotated[int, pydantic.Field(ge=8, le=65535)]
    layout: LayoutConfig
    pack: bool = False
    corruption: CorruptionConfig
    mode: Literal["dynamic", "static"] = "dynamic"
    copies: Annotated[int, pydantic.Field(ge=1)] = 1
    frame: FrameName = setting("cls_sep", added=True)
    decoder_length: Annotated[int, pydantic.Field(ge=2, le=65535)] | None = setting(
        None, added=True
    )
    sources: Annotated[tuple[Name, ...], pydantic.Field(min_length=1)] | None = setting(
        None, added=True
    )
    buckets: tuple[Annotated[int, pydantic.Field(ge=8)], ...] = setting((), added=True)

    def __post_init__(self) -> None:
        if list(self.buckets) != sorted(set(self.buckets) - {self.length}):
            raise ValueError("buckets must be different lengths, ascending, without length itself")
        if any(self.length % bucket for bucket in self.buckets):
            raise ValueError(
                "buckets must be divisors of length, so that batches hold as many tokens"
            )
        if self.buckets and self.pack:
            raise ValueError("give either buckets or pack: packed rows are all of one length")
        if (
            self.layout.reads_backward()
            and self.corruption.marks()
            and not self.corruption.reads_backward()
        ):
            raise ValueError(
                f"layout '{self.layout.kind}' turns sequences round, and corruption "
                f"'{self.corruption.kind}' would find their words at the wrong ends; set "
                "layout.bidirectional=false"
            )
        if self.layout.num_segments() > PAIR and not self.corruption.keeps_segments():
            raise ValueError(
                f"layout '{self.layout.kind}' gives tokens segments that corruption "
                f"'{self.corruption.kind}' does not keep; choose one that leaves tokens in place, "
                "such as units or masked"
            )
        if self.buckets and self.layout.consecutive():
            raise ValueError(
                "buckets part sequences that this layout keeps together; leave them out"
            )

    @property
    def row_lengths(self) -> tuple[int, ...]:
        """The lengths of rows, ascending."""
        return (*self.buckets, self.length)

    def decoder_length_of(self, length: int) -> int | None:
        """Tokens of the decoder's side of rows of one of the lengths; None where there is none."""
        return None if self.decoder_length is None else self.decoder_length * length // self.length


@dataclass(frozen=True)
class Preparation:
    """Everything preprocessing needs to know of a configuration."""

    seed: int
    corpus: CorpusConfig
    tokenizer: TokenizerConfig
    examples: Mapping[str, ExamplesConfig]

    @property
    def documents_directory(self) -> Path:
        """What ingest writes."""
        return self.corpus.directory / "documents"

    @property
    def filtered_directory(self) -> Path:
        """What clean writes."""
        return self.corpus.directory / "filtered"

    @property
    def cleaned_directory(self) -> Path:
        """What deduplicate reads: the documents that clean left, or all of them without it."""
        return self.filtered_directory if self.corpus.clean else self.documents_directory

    @property
    def signatures_directory(self) -> Path:
        """What deduplicate compares documents by."""
        return self.corpus.directory / "duplicates" / "signatures"

    @property
    def matches_directory(self) -> Path:
        """Which documents deduplicate found to repeat others."""
        return self.corpus.directory / "duplicates" / "matches"

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
        name = self.tokenizer.directory_name
        if self.corpus.annotations != AnnotationsConfig():
            name += f"-{digest(self.corpus.annotations)[:8]}"
        return self.corpus.directory / "tokens" / name

    @property
    def tables(self) -> tuple[Wanted, ...]:
        """What the examples sets look up, each table once."""
        wanted = (table for name in self.examples for table in self.tables_of(name))
        return tuple({table.directory_name: table for table in wanted}.values())

    def tables_of(self, examples: str) -> tuple[Wanted, ...]:
        """What one of the example sets looks up: tables of the tokens that it is made of."""
        own = self.examples[examples]
        return tuple(Wanted(table, own.sources) for table in own.corruption.tables())

    def counts_directory(self, table: Wanted) -> Path:
        """What the counts stage writes for one table."""
        tokens = self.tokens_directory.name
        return self.corpus.directory / "counts" / tokens / table.directory_name

    def table_directory(self, table: Wanted) -> Path:
        """What the tables stage writes for one table."""
        tokens = self.tokens_directory.name
        return self.corpus.directory / "tables" / tokens / table.directory_name

    def examples_directory(self, name: str) -> Path:
        """What the examples stage writes for one of the example sets."""
        settings = digest([self.seed, self.examples[name], self.corpus.shard_bytes])[:8]
        tokens = self.tokens_directory.name
        return self.corpus.directory / "examples" / tokens / f"{name}-{settings}"


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
    sources = sections["corpus"].sources
    known = f"corpus.sources has {', '.join(sources) or 'none'}"
    asked = {f"examples.{name}": own.sources for name, own in sections["examples"].items()}
    asked["tokenizer"] = getattr(sections["tokenizer"], "sources", None)
    problems += [
        f"{key}.sources: '{source}' is no name of a source; {known}"
        for key, names in asked.items()
        for source in names or ()
        if source not in sources
    ]
    heldout = sum(entry.share or 0.0 for entry in validation.values())
    if heldout >= 1:
        problems.append(
            f"corpus.validation: the shares sum up to {heldout:.3g} and leave nothing to train on"
        )
    if problems:
        raise ConfigError([f"{document.name}: {problem}" for problem in problems])
    return Preparation(**{name: sections[name] for name in PREPARATION_SECTIONS})
