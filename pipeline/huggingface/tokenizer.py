"""The tokenizer files of a folder: what the ``tokenizers`` library wrote, made loadable."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preprocessing.storage import InputError
from preprocessing.tokenizers.specials import USUAL_NAMES, Role
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
    """Read ``tokenizer.json``.

    Raises:
        ValueError: there is none, or it lacks a special token.
    """
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise ValueError(f"{path}: there is no such tokenizer; train or adopt one first")
    try:
        vocabulary = Vocabulary.load(directory)
    except InputError as error:
        raise ValueError(str(error)) from None
    missing = [USUAL_NAMES[role][0] for role in NEEDED if role not in vocabulary.names]
    if missing:
        raise ValueError(f"{path}: the vocabulary has no {', '.join(missing)}")
    tokens = {ROLES[role]: name for role, name in vocabulary.names.items() if role in ROLES}
    ids = {ROLES[role]: vocabulary.id_of(role) for role in ROLES if role in vocabulary.names}
    normalizer = json.loads(path.read_text(encoding="utf-8")).get("normalizer")
    return TokenizerInfo(
        vocabulary.size,
        tokens,
        {role: index for role, index in ids.items() if index is not None},
        _lowercases(normalizer),
    )


def write_tokenizer(source: Path, target: Path, info: TokenizerInfo, max_length: int) -> None:
    """Copy ``tokenizer.json`` (and ``vocab.txt``) and describe it to transformers.

    The class named is the one that runs ``tokenizer.json`` as it is. ``BertTokenizer`` would build
    its own normalizer from ``do_lower_case`` and agree with ours only by luck; the key is kept for
    tools that read it.
    """
    shutil.copyfile(source / "tokenizer.json", target / "tokenizer.json")
    if (source / "vocab.txt").is_file():
        shutil.copyfile(source / "vocab.txt", target / "vocab.txt")
    fields = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "do_lower_case": info.lowercase,
        **info.special_tokens,
    }
    text = json.dumps(fields, indent=2, sort_keys=True) + "\n"
    (target / "tokenizer_config.json").write_text(text, encoding="utf-8")


def _lowercases(normalizer: Mapping[str, Any] | None) -> bool:
    match normalizer:
        case {"type": "Lowercase"}:
            return True
        case {"type": "BertNormalizer", "lowercase": bool(lowercase)}:
            return lowercase
        case {"type": "Sequence", "normalizers": list(parts)}:
            return any(map(_lowercases, parts))
        case _:
            return False
