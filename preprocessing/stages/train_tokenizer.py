"""tokenizer: train a vocabulary on the training documents, or adopt an existing one.

tokenizers/<tokenizer>/
  tokenizer.json or tokenizer.model    the reference; the library of this form decides
  vocab.txt                            where the vocabulary is a mere list of tokens
  specials.json                        roles of tokens with unusual names
  manifest.json                        with coverage and fertility by language
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.schema import to_plain
from preprocessing.settings import Preparation
from preprocessing.stage import DigestedInputs, Made
from preprocessing.storage import Shard, atomic_write, file_digest
from preprocessing.tokenizers.adoption import VOCABULARY_FILE, adopt, existing_file
from preprocessing.tokenizers.byte_level import train_byte_level
from preprocessing.tokenizers.characters import train_characters
from preprocessing.tokenizers.coverage import MAX_BYTES, coverage
from preprocessing.tokenizers.models import (
    SENTENCEPIECE_FILE,
    TOKENIZER_FILE,
    AnyModel,
    SentencePieceModel,
    TokenizersModel,
    listing,
)
from preprocessing.tokenizers.sampling import TrainingTexts, bytes_by_language, training_texts
from preprocessing.tokenizers.sentencepiece import TrainingLines, train_sentencepiece
from preprocessing.tokenizers.settings import (
    ByteLevelBPEConfig,
    CharactersConfig,
    ExistingTokenizerConfig,
    SentencePieceConfig,
    TrainedTokenizerConfig,
    WordPieceConfig,
)
from preprocessing.tokenizers.wordpiece import train_wordpiece
from preprocessing.tokens import chosen_shards, digest_of_sources
from preprocessing.vocabulary import SPECIALS_FILE, Vocabulary

_BYTES_A_PIECE = 40
"""Measured: 12 to 29 over all files of a vocabulary."""


@dataclass(frozen=True)
class Task:
    """Everything: a vocabulary is one piece of work."""

    directory: Path
    shards: tuple[Path, ...]
    seed: int
    config: TrainedTokenizerConfig | ExistingTokenizerConfig


class TrainTokenizer(DigestedInputs):
    """The stage, as :func:`preprocessing.stage.run_stage` sees it."""

    name = "tokenizer"

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation
        self._config = preparation.tokenizer
        self._documents = preparation.clean_directory
        config = self._config
        self._sources = None if isinstance(config, ExistingTokenizerConfig) else config.sources
        self.directory = preparation.tokenizer_directory

    def configuration(self) -> Any:
        """The tokenizer section and the seed."""
        plain = to_plain(self._config)
        plain.pop("name", None)
        plain.pop("path", None)
        return {"seed": self._preparation.seed, "tokenizer": plain}

    def inputs(self) -> Mapping[str, str]:
        """The documents, and the adopted file."""
        inputs = {"clean": digest_of_sources(self._documents, self._sources)}
        if isinstance(self._config, ExistingTokenizerConfig):
            inputs["vocabulary"] = file_digest(existing_file(self._config.path))
        return inputs

    def plan(self) -> Sequence[Task]:
        """One task."""
        shards = chosen_shards(self._documents, "train", self._sources)
        paths = tuple(self._documents / shard.name for shard in shards)
        return [Task(self.directory, paths, self._preparation.seed, self._config)]

    def expected_bytes(self) -> int:
        """The pieces in all their listings, or twice the adopted file."""
        if isinstance(self._config, ExistingTokenizerConfig):
            return 2 * existing_file(self._config.path).stat().st_size
        return _BYTES_A_PIECE * self._config.vocab_size

    @property
    def function(self) -> Callable[[Task], Made]:
        """Train or adopt."""
        return make_tokenizer

    def finish(self, made: Sequence[Made]) -> Mapping[str, Any]:
        """The size of the vocabulary, what it was trained on, and how well it fits."""
        return {"vocab_size": made[0].shards[0].rows, **made[0].facts}


def make_tokenizer(task: Task) -> Made:
    """Write the vocabulary's files."""
    facts: dict[str, Any] = {}
    if isinstance(task.config, ExistingTokenizerConfig):
        model = adopt(task.config)
    else:
        texts = training_texts(
            task.shards,
            seed=task.seed,
            alpha=task.config.sampling.alpha,
            max_bytes=task.config.max_training_bytes,
        )
        model, changed = train(task.config, texts)
        facts["trained_on"] = {
            "bytes_by_language": bytes_by_language(task.shards),
            "sampled_bytes_by_language": texts.bytes_by_language(),
            **changed,
        }
    shards = [_write(task.directory / name, text, model) for name, text in _files(task, model)]
    unknown = Vocabulary.load(task.directory).unknown_id
    sample = training_texts(task.shards, seed=task.seed, alpha=0.0, max_bytes=MAX_BYTES)
    facts["languages"] = coverage(model, unknown, sample)
    return Made(tuple(shards), facts=facts)


def train(
    config: TrainedTokenizerConfig, texts: TrainingTexts
) -> tuple[AnyModel, Mapping[str, int]]:
    """Train a vocabulary; also what had to be done to the text for it, counted."""
    match config:
        case WordPieceConfig():
            return TokenizersModel(train_wordpiece(config, texts)), {}
        case ByteLevelBPEConfig():
            return TokenizersModel(train_byte_level(config, texts)), {}
        case CharactersConfig():
            return TokenizersModel(train_characters(config, texts)), {}
        case SentencePieceConfig():
            lines = TrainingLines(texts())
            return train_sentencepiece(config, lines), lines.counts


def _files(task: Task, model: AnyModel) -> list[tuple[str, bytes]]:
    if isinstance(model, SentencePieceModel):
        files = [(SENTENCEPIECE_FILE, model.serialized)]
    else:
        files = [(TOKENIZER_FILE, model.tokenizer.to_str(pretty=True).encode())]
    pieces = listing(model)
    if pieces is not None:
        files.append((VOCABULARY_FILE, pieces.encode()))
    if isinstance(task.config, ExistingTokenizerConfig) and task.config.specials:
        plain = json.dumps(dict(task.config.specials), sort_keys=True, ensure_ascii=False)
        files.append((SPECIALS_FILE, plain.encode()))
    return files


def _write(path: Path, data: bytes, model: AnyModel) -> Shard:
    with atomic_write(path) as file:
        file.write(data)
    return Shard(path.name, model.size, file.num_bytes, file.checksum)
