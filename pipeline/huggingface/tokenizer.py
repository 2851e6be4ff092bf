"""The tokenizer files of a folder: a vocabulary of any kind, made loadable by transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from pipeline.huggingface.conversion import tokenizer_of
from preprocessing.storage import InputError
from preprocessing.tokenizers.adoption import VOCABULARY_FILE
from preprocessing.tokenizers.models import (
    SENTENCEPIECE_FILE,
    TOKENIZER_FILE,
    AnyModel,
    SentencePieceModel,
    model_file,
)
from preprocessing.tokenizers.specials import USUAL_NAMES, Role
from preprocessing.tokenizers.template import add_template
from preprocessing.vocabulary import Vocabulary

ROLES: Mapping[Role, str] = {
    "pad": "pad_token",
    "unknown": "unk_token",
    "start": "cls_token",
    "separator": "sep_token",
    "mask": "mask_token",
}
"""The roles that tokens play here, and what transformers calls them."""
NEEDED: tuple[Role, ...] = ("pad", "start", "separator", "mask")
"""Roles that every export has; byte-level vocabularies know all text, and have no unknown."""


@dataclass(frozen=True)
class TokenizerInfo:
    """What a model's configuration and the tokenizer's own need to know.

    Attributes:
        vocab_size: number of tokens, added ones included.
        special_tokens: by what transformers calls their roles, such as ``pad_token``.
        special_ids: the ids of the same.
        lowercase: whether text is lowercased.
    """

    vocab_size: int
    special_tokens: Mapping[str, str]
    special_ids: Mapping[str, int]
    lowercase: bool


def read_tokenizer(directory: Path) -> TokenizerInfo:
    """Read ``tokenizer.json`` or ``tokenizer.model``.

    Raises:
        ValueError: there is none, or it lacks a special token.
    """
    try:
        vocabulary = Vocabulary.load(directory)
    except InputError as error:
        raise ValueError(str(error)) from None
    path = model_file(directory)
    missing = [USUAL_NAMES[role][0] for role in NEEDED if role not in vocabulary.names]
    if missing:
        raise ValueError(f"{path}: the vocabulary has no {', '.join(missing)}")
    tokens = {ROLES[role]: name for role, name in vocabulary.names.items() if role in ROLES}
    ids = {ROLES[role]: vocabulary.id_of(role) for role in ROLES if role in vocabulary.names}
    return TokenizerInfo(
        vocabulary.size,
        tokens,
        {role: index for role, index in ids.items() if index is not None},
        _lowercases(vocabulary.model),
    )


def write_tokenizer(
    source: Path, target: Path, info: TokenizerInfo, max_length: int, *, segments: bool
) -> None:
    """Write ``tokenizer.json`` (and copy the files that say the same) and describe it.

    The class named is the one that runs ``tokenizer.json`` as it is. ``BertTokenizer`` would build
    its own normalizer from ``do_lower_case`` and agree with ours only by luck; the key is kept for
    tools that read it.

    Args:
        segments: whether the model is told which segment a token belongs to.
    """
    written = framed_tokenizer(source)
    if written is None:
        shutil.copyfile(source / TOKENIZER_FILE, target / TOKENIZER_FILE)
    else:
        written.save(str(target / TOKENIZER_FILE))
    for name in (SENTENCEPIECE_FILE, VOCABULARY_FILE):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    fields = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "model_input_names": [
            "input_ids",
            *(["token_type_ids"] if segments else []),
            "attention_mask",
        ],
        "do_lower_case": info.lowercase,
        **info.special_tokens,
    }
    text = json.dumps(fields, indent=2, sort_keys=True) + "\n"
    (target / "tokenizer_config.json").write_text(text, encoding="utf-8")


def framed_tokenizer(directory: Path) -> Tokenizer | None:
    """What puts special tokens around segments, where ``directory`` holds nothing that does.

    A ``.model`` knows no such thing, nor does a ``tokenizer.json`` without a post-processor, or
    with one that only mends offsets. None: its ``tokenizer.json`` does by itself.
    """
    vocabulary = Vocabulary.load(directory)
    path = model_file(directory)
    if isinstance(vocabulary.model, SentencePieceModel):
        return tokenizer_of(path, vocabulary.names)
    plain = json.loads(path.read_text(encoding="utf-8"))
    if (plain["post_processor"] or {"type": "ByteLevel"})["type"] != "ByteLevel":
        return None
    tokenizer = Tokenizer.from_file(str(path))
    add_template(tokenizer, vocabulary.names)
    if plain["pre_tokenizer"] and plain["pre_tokenizer"]["type"] == "ByteLevel":
        # Pieces hold the space before them, so the mask stands for one with it.
        mask = AddedToken(vocabulary.names["mask"], lstrip=True, special=True)
        tokenizer.add_special_tokens([mask])
    return tokenizer


def _lowercases(model: AnyModel) -> bool:
    if isinstance(model, SentencePieceModel):
        return str(model.processor.normalize("A")).endswith("a")
    return _normalizer_lowercases(json.loads(model.tokenizer.to_str())["normalizer"])


def _normalizer_lowercases(normalizer: Mapping[str, Any] | None) -> bool:
    match normalizer:
        case {"type": "Lowercase"}:
            return True
        case {"type": "BertNormalizer", "lowercase": bool(lowercase)}:
            return lowercase
        case {"type": "Sequence", "normalizers": list(parts)}:
            return any(map(_normalizer_lowercases, parts))
        case _:
            return False
