"""tokenizer: train a vocabulary on the training documents, or adopt an existing one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
    InputError,
    Manifest,
    Shard,
    atomic_write,
    file_digest,
    manifest_digest,
    open_shard,
)
from preprocessing.vocabulary import SPECIAL_TOKENS, TOKENIZER_FILE

VOCABULARY_FILE = "vocab.txt"
_CONTINUING = "##"
_ALPHABET_SHARE = 0.5
"""At most this share of the pieces are single characters; rarer characters become [UNK]."""
_CODE_POINTS = 0x110000
_UNSEEN, _BETWEEN_WORDS, _A_WORD, _IN_WORDS = range(4)  # what a character is to the tokenizer


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
        return {"clean": manifest_digest(self._preparation.clean_directory)}

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
            tokenizer = train_wordpiece(task.config, partial(_texts, task))
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
    tokenizer.decoder = decoders.WordPiece(prefix=_CONTINUING)
    return tokenizer


def finish_pipeline(tokenizer: Tokenizer) -> Tokenizer:
    """Add the special tokens and the [CLS] ... [SEP] template to a tokenizer that has the ids."""
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    separator, start = tokenizer.token_to_id("[SEP]"), tokenizer.token_to_id("[CLS]")
    assert separator is not None
    assert start is not None
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", separator), ("[CLS]", start))
    return tokenizer


def train_wordpiece(config: WordPieceConfig, texts: Callable[[], Iterable[list[str]]]) -> Tokenizer:
    """Train a WordPiece vocabulary on batches of texts, which are gone through twice.

    The library numbers single characters in the order of a hash table, and breaks ties between
    merges by these numbers: two runs differ. It is given the characters in an order of ours.
    """
    tokenizer = bert_pipeline(WordPiece(unk_token="[UNK]"), lowercase=config.lowercase)
    most = int(config.vocab_size * _ALPHABET_SHARE)
    alphabet = common_characters(tokenizer, texts(), most)
    trainer = WordPieceTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=[*SPECIAL_TOKENS, *alphabet],
        initial_alphabet=[piece for piece in alphabet if len(piece) == 1],
        limit_alphabet=0,
        continuing_subword_prefix=_CONTINUING,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer=trainer)
    # Anew, since the trainer has made every character a special token.
    pieces = tokenizer.get_vocab(with_added_tokens=False)
    model = WordPiece(vocab=pieces, unk_token="[UNK]")
    return finish_pipeline(bert_pipeline(model, lowercase=config.lowercase))


def common_characters(tokenizer: Tokenizer, texts: Iterable[list[str]], most: int) -> list[str]:
    """At most so many single-character pieces: the commonest characters, sorted.

    A character that also stands inside words takes two pieces, ``a`` and ``##a``.
    """
    counts = np.zeros(_CODE_POINTS, dtype=np.int64)
    inside = np.zeros(_CODE_POINTS, dtype=bool)
    role = np.full(_CODE_POINTS, _UNSEEN, dtype=np.int8)
    for batch in texts:
        joined = "\n".join(tokenizer.normalizer.normalize_str(text) for text in batch)
        points = np.frombuffer(joined.encode("utf-32-le"), dtype="<u4")
        found = np.bincount(points)
        counts[: len(found)] += found
        for point in np.flatnonzero(found):
            if role[point] == _UNSEEN:
                parts = tokenizer.pre_tokenizer.pre_tokenize_str(f"a{chr(point)}a")
                role[point] = {1: _IN_WORDS, 2: _BETWEEN_WORDS, 3: _A_WORD}[len(parts)]
        in_words = role[points] == _IN_WORDS
        inside[points[1:][in_words[1:] & in_words[:-1]]] = True
    counts[role == _BETWEEN_WORDS] = 0
    commonest = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    kept = np.sort(commonest[np.cumsum(1 + inside[commonest]) <= most])
    return [
        *(chr(point) for point in kept),
        *(_CONTINUING + chr(point) for point in kept if inside[point]),
    ]


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
    ids = tokenizer.get_vocab(with_added_tokens=True).values()
    if set(ids) != set(range(len(ids))):
        raise InputError(
            f"{path}: {len(ids)} pieces with ids up to {max(ids)}: a piece stands there twice, "
            "or an id is not used"
        )
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
