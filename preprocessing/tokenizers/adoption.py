"""Adopting a vocabulary that exists already, in any of the forms it may come in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from preprocessing.storage import InputError
from preprocessing.tokenizers.models import (
    SENTENCEPIECE_FILE,
    TOKENIZER_FILE,
    AnyModel,
    SentencePieceModel,
    TokenizersModel,
)
from preprocessing.tokenizers.settings import ExistingTokenizerConfig
from preprocessing.tokenizers.specials import Role, find_sentinels, recognise
from preprocessing.tokenizers.template import add_template
from preprocessing.tokenizers.wordpiece import bert_pipeline

VOCABULARY_FILE = "vocab.txt"


def existing_file(path: Path) -> Path:
    """The vocabulary file that a path means.

    Raises:
        InputError: there is none, or a folder holds several and none of them is the obvious one.
    """
    if path.is_file():
        return path
    if (path / SENTENCEPIECE_FILE).is_file():
        return path / SENTENCEPIECE_FILE  # an export of ours holds what became of it, too
    models = sorted(path.glob("*.model")) if path.is_dir() else []
    given = [path / TOKENIZER_FILE] if (path / TOKENIZER_FILE).is_file() else []
    found = [*given, *models] or [path / VOCABULARY_FILE]
    if len(found) > 1:
        raise InputError(
            f"{path}: holds {', '.join(one.name for one in found)}; name the one that is meant in "
            "tokenizer.path"
        )
    if not found[0].is_file():
        raise InputError(
            f"{path}: no {TOKENIZER_FILE}, {VOCABULARY_FILE} or sentencepiece model here; "
            "tokenizer.path names a vocabulary file or a folder that holds one"
        )
    return found[0]


def adopt(config: ExistingTokenizerConfig) -> AnyModel:
    """Read an existing vocabulary.

    Raises:
        InputError: not a vocabulary, its ids have gaps, or a token of ``specials`` is missing.
    """
    path = existing_file(config.path)
    model: AnyModel
    if path.suffix == ".model":
        model = SentencePieceModel.load(path)
    else:
        try:
            tokenizer = _read(path, lowercase=config.lowercase)
        except Exception as error:  # the library raises bare Exception
            raise InputError(f"{path}: not a vocabulary that can be read: {error}") from None
        ids = tokenizer.get_vocab(with_added_tokens=True).values()
        if not ids:
            raise InputError(f"{path}: holds no pieces")
        if set(ids) != set(range(len(ids))):
            raise InputError(
                f"{path}: {len(ids)} pieces with ids up to {max(ids)}: a piece stands "
                "there twice, or an id is not used"
            )
        model = TokenizersModel(tokenizer)
    try:
        names = recognise(model.token_to_id, config.specials)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    if isinstance(model, TokenizersModel):
        sentinels = find_sentinels(model.token_to_id)
        return TokenizersModel(_with_specials(model.tokenizer, names, sentinels))
    return model


def _read(path: Path, *, lowercase: bool) -> Tokenizer:
    if path.suffix == ".json":
        return Tokenizer.from_file(str(path))
    pieces = WordPiece.read_file(str(path))
    if pieces and "[UNK]" not in pieces:
        raise ValueError("it has no [UNK]")
    return bert_pipeline(WordPiece(vocab=pieces, unk_token="[UNK]"), lowercase=lowercase)


def _with_specials(
    tokenizer: Tokenizer, roles: Mapping[Role, str], sentinels: Iterable[str]
) -> Tokenizer:
    """Every token with a role is special; BERT's get BERT's template, others keep their own."""
    names = [*roles.values(), *sentinels]
    plain = json.loads(tokenizer.to_str())
    if plain["model"]["type"] == "WordPiece" and {"[CLS]", "[SEP]"} <= set(names):
        tokenizer.add_special_tokens(names)
        add_template(tokenizer, roles)
        return tokenizer
    special = {token["content"] for token in plain["added_tokens"] if token["special"]}
    missing = [name for name in names if name not in special]
    if missing:
        tokenizer.add_special_tokens(missing)
    return tokenizer
