"""tokenizer: train a vocabulary on the training documents, or adopt an existing one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from tokenizers.trainers import WordPieceTrainer

from configs.schema import to_plain
from preprocessing.draws import purpose_key, uniform
from preprocessing.settings import ExistingTokenizerConfig, Preparation, WordPieceConfig
from preprocessing.stage import Made
from preprocessing.stages.deduplicate import read_ids
from preprocessing.storage import (
    MANIFEST,
    InputError,
    Manifest,
    Shard,
    atomic_write,
    file_digest,
    open_shard,
)
from preprocessing.vocabulary import SPECIAL_TOKENS, TOKENIZER_FILE

VOCABULARY_FILE = "vocab.txt"
_ALPHABET_LIMIT = 0.5
"""At most this share of the pieces are single characters; rarer characters become [UNK]."""


@dataclass(frozen=True)
class Task:
    """Everything: a vocabulary is one piece of work."""

    directory: Path
    shards: tuple[Path, ...]
    total_bytes: int
    seed: int
    config: WordPieceConfig | ExistingTokenizerConfig


class TrainTokenizer:
    """The stage, as :func:`preprocessing.stage.run_stage` sees it."""

    name = "tokenizer"

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation
        self._config = preparation.tokenizer
        self.directory = preparation.tokenizer_directory

    def configuration(self) -> Any:
        """The tokenizer section and the seed."""
        plain = to_plain(self._config)
        plain.pop("name", None)
        plain.pop("path", None)
        return {"seed": self._preparation.seed, "tokenizer": plain}

    def inputs(self) -> Mapping[str, str]:
        """The documents' manifest, or the adopted file."""
        if isinstance(self._config, ExistingTokenizerConfig):
            return {"vocabulary": file_digest(existing_file(self._config.path))}
        return {"clean": file_digest(self._preparation.clean_directory / MANIFEST)}

    def plan(self) -> Sequence[Task]:
        """One task."""
        shards: tuple[Path, ...] = ()
        total = 0
        if isinstance(self._config, WordPieceConfig):
            directory = self._preparation.clean_directory
            manifest = Manifest.read(directory)
            shards = tuple(directory / shard.name for shard in manifest.of("train"))
            total = manifest.totals("train")["bytes"]
        return [Task(self.directory, shards, total, self._preparation.seed, self._config)]

    @property
    def function(self) -> Callable[[Task], Made]:
        """Train or adopt."""
        return make_tokenizer

    def finish(self, made: Sequence[Made]) -> Mapping[str, Any]:
        """The size of the vocabulary."""
        return {"vocab_size": made[0].shards[0].rows}


def make_tokenizer(task: Task) -> Made:
    """Write ``tokenizer.json`` and ``vocab.txt``."""
    match task.config:
        case WordPieceConfig():
            tokenizer = train_wordpiece(task.config, _texts(task))
        case ExistingTokenizerConfig():
            tokenizer = adopt(task.config)
    pieces = tokenizer.get_vocab(with_added_tokens=True)
    listing = "".join(f"{piece}\n" for piece in sorted(pieces, key=lambda piece: pieces[piece]))
    files = {TOKENIZER_FILE: tokenizer.to_str(pretty=True), VOCABULARY_FILE: listing}
    shards = []
    for name, text in files.items():
        with atomic_write(task.directory / name) as file:
            file.write(text.encode())
        shards.append(Shard(name, len(pieces), file.num_bytes, file.checksum))
    return Made(tuple(shards))


def bert_pipeline(model: WordPiece, *, lowercase: bool) -> Tokenizer:
    """BERT's tokenizer around a WordPiece model: basic tokenizer, template, decoder."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=lowercase
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer


def finish_pipeline(tokenizer: Tokenizer) -> Tokenizer:
    """Add the special tokens and the [CLS] ... [SEP] template to a tokenizer that has the ids."""
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    separator, start = tokenizer.token_to_id("[SEP]"), tokenizer.token_to_id("[CLS]")
    assert separator is not None
    assert start is not None
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", separator), ("[CLS]", start))
    return tokenizer


def train_wordpiece(config: WordPieceConfig, texts: Iterator[list[str]]) -> Tokenizer:
    """Train a WordPiece vocabulary on batches of texts."""
    tokenizer = bert_pipeline(WordPiece(unk_token="[UNK]"), lowercase=config.lowercase)
    trainer = WordPieceTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=list(SPECIAL_TOKENS),
        limit_alphabet=int(config.vocab_size * _ALPHABET_LIMIT),
        continuing_subword_prefix="##",
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return finish_pipeline(tokenizer)


def existing_file(path: Path) -> Path:
    """The vocabulary file that a path means.

    Raises:
        InputError: there is none.
    """
    for candidate in (path / TOKENIZER_FILE, path / VOCABULARY_FILE, path):
        if candidate.is_file():
            return candidate
    raise InputError(
        f"{path}: no {TOKENIZER_FILE} or {VOCABULARY_FILE} here; tokenizer.path names a "
        "vocabulary file or a folder that holds one"
    )


def adopt(config: ExistingTokenizerConfig) -> Tokenizer:
    """Read an existing vocabulary.

    Raises:
        InputError: not a tokenizer, or a special token is missing.
    """
    path = existing_file(config.path)
    try:
        if path.suffix == ".json":
            tokenizer = Tokenizer.from_file(str(path))
        else:
            pieces = WordPiece.read_file(str(path))
            tokenizer = bert_pipeline(
                WordPiece(vocab=pieces, unk_token="[UNK]"), lowercase=config.lowercase
            )
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"{path}: not a vocabulary that can be read: {error}") from None
    missing = [token for token in SPECIAL_TOKENS if tokenizer.token_to_id(token) is None]
    if missing:
        raise InputError(f"{path}: the vocabulary has no {', '.join(missing)}")
    return finish_pipeline(tokenizer)


def _texts(task: Task) -> Iterator[list[str]]:
    """Batches of training texts: all, or a keyed sample of the documents that is large enough."""
    assert isinstance(task.config, WordPieceConfig)
    share = min(1.0, task.config.max_training_bytes / max(1, task.total_bytes))
    key = purpose_key(task.seed, "tokenizer sample")
    for path in task.shards:
        chosen = uniform(read_ids(path) ^ key, 0, 0) < share
        reader, start = open_shard(path), 0
        for index in range(reader.num_record_batches):
            texts = reader.get_batch(index).column("text").to_pylist()
            own = chosen[start : start + len(texts)]
            start += len(texts)
            yield [texts[row] for row in np.flatnonzero(own)]
