"""Which encoder a vocabulary gets: a fast one where its pipeline is known to the last key.

A pipeline is recognised by its ``tokenizer.json``. One with anything that is not named here, were
it a key that a later library adds, goes through the reference.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer

from preprocessing.tokenization.base import Encoder
from preprocessing.tokenization.byte_level import ByteLevelPipeline, byte_alphabet
from preprocessing.tokenization.characters import CharactersPipeline
from preprocessing.tokenization.chunks import ChunkEncoder
from preprocessing.tokenization.reference import Reference
from preprocessing.tokenization.wordpiece import PREFIX, WordPiecePipeline

_log = logging.getLogger(__name__)

Kind = Literal["wordpiece", "byte_level", "characters"]

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_BPE_KEYS = {
    "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
    "byte_fallback", "ignore_merges",
}  # fmt: skip
_EACH = {"type": "Split", "pattern": {"Regex": "(?m:.)"}, "behavior": "Isolated", "invert": False}
_DROPPED = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, _EACH]}
_ONE_SPACE = {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}


def encoder_of(tokenizer: Tokenizer) -> Encoder:
    """The fastest encoder whose ids are sure to be those of the tokenizer.

    Args:
        tokenizer: pads and truncates nothing, and takes special tokens in a text for text.
    """
    plain = json.loads(tokenizer.to_str())
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    id_type = np.uint16 if size <= 2**16 else np.uint32
    continues = None
    if plain["model"]["type"] == "WordPiece":
        prefix = plain["model"]["continuing_subword_prefix"]
        continues = np.zeros(size, np.bool_)
        for piece, index in tokenizer.get_vocab(with_added_tokens=True).items():
            continues[index] = piece.startswith(prefix) and len(piece) > len(prefix)
    reference = Reference(tokenizer, id_type, continues)
    match recognise(plain):
        case "wordpiece":
            return ChunkEncoder(WordPiecePipeline(tokenizer, plain), reference, id_type)
        case "byte_level":
            return ChunkEncoder(ByteLevelPipeline(tokenizer, plain), reference, id_type)
        case "characters":
            return ChunkEncoder(CharactersPipeline(tokenizer), reference, id_type)
        case None:
            _log.warning(
                "this tokenizer.json is not known to encode chunk by chunk: every text goes "
                "through the library"
            )
            return reference


def recognise(plain: Mapping[str, Any]) -> Kind | None:
    """The kind of a pipeline, given as in ``tokenizer.json``; None where it is none of ours."""
    # What stands behind the ids (post-processor, decoder) does not change them.
    known = {
        "version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer",
        "post_processor", "decoder", "model",
    }  # fmt: skip
    if not known >= set(plain) or plain["truncation"] or plain["padding"]:
        return None
    if not all(token["special"] for token in plain["added_tokens"]):
        return None  # these are cut out of the text before anything else is done to it
    if _is_wordpiece(plain):
        return "wordpiece"
    if _is_byte_level(plain):
        return "byte_level"
    if _is_characters(plain):
        return "characters"
    return None


def _is_wordpiece(plain: Mapping[str, Any]) -> bool:
    normalizer, model = plain["normalizer"], plain["model"]
    return (
        normalizer is not None
        and set(normalizer)
        == {"type", "clean_text", "handle_chinese_chars", "strip_accents", "lowercase"}
        and normalizer["type"] == "BertNormalizer"
        and plain["pre_tokenizer"] == {"type": "BertPreTokenizer"}
        and set(model)
        == {"type", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab"}
        and model["type"] == "WordPiece"
        and model["continuing_subword_prefix"] == PREFIX
        and model["unk_token"] in model["vocab"]
    )


def _is_byte_level(plain: Mapping[str, Any]) -> bool:
    pre_tokenizer, model = plain["pre_tokenizer"], plain["model"]
    settings = {key: value for key, value in model.items() if key not in ("vocab", "merges")}
    return (
        plain["normalizer"] is None
        and pre_tokenizer is not None
        and {key: value for key, value in pre_tokenizer.items() if key != "trim_offsets"}
        == _BYTE_LEVEL
        and settings.pop("type") == "BPE"
        and set(settings) <= _BPE_KEYS
        # With a piece for every byte nothing is unknown, and what is done to it does not matter.
        and not any(settings.get(key) for key in set(settings) - {"unk_token", "fuse_unk"})
        and all(piece in model["vocab"] for piece in byte_alphabet())
    )


def _is_characters(plain: Mapping[str, Any]) -> bool:
    normalizer, model = plain["normalizer"], plain["model"]
    if normalizer is None or set(normalizer) != {"type", "normalizers"}:
        return False
    steps = [step for step in normalizer["normalizers"] if step != {"type": "Lowercase"}]
    splits_all = plain["pre_tokenizer"] == _DROPPED and not steps
    keeps_space = plain["pre_tokenizer"] == _EACH and steps == [_ONE_SPACE]
    return (
        normalizer["type"] == "Sequence"
        and (splits_all or keeps_space)
        and set(model) == {"type", "vocab", "unk_token"}
        and model["type"] == "WordLevel"
        and model["unk_token"] in model["vocab"]
    )
