"""The tokenizer files of a folder: what the ``tokenizers`` library wrote, made loadable."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
"""The roles that transformers knows, and the tokens that play them."""


@dataclass(frozen=True)
class TokenizerInfo:
    """What a model's configuration and the tokenizer's own need to know.

    Attributes:
        vocab_size: number of tokens, added ones included.
        special_ids: ids by role, such as ``pad_token``.
        lowercase: whether text is lowercased.
    """

    vocab_size: int
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
    tokenizer = Tokenizer.from_file(str(path))
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in SPECIAL_TOKENS.values() if token not in vocabulary]
    if missing:
        raise ValueError(f"{path}: the vocabulary has no {', '.join(missing)}")
    ids = {role: vocabulary[token] for role, token in SPECIAL_TOKENS.items()}
    normalizer = json.loads(path.read_text(encoding="utf-8")).get("normalizer")
    return TokenizerInfo(len(vocabulary), ids, _lowercases(normalizer))


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
        **SPECIAL_TOKENS,
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
