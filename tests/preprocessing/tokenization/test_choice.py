"""Pipelines that are recognised, and those that must not be."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers
from vocabularies import (
    PROSE,
    assert_equal,
    byte_level,
    characters,
    encode,
    reference_of,
    wordpiece,
)

from preprocessing.tokenization.choice import encoder_of, recognise
from preprocessing.tokenization.reference import Reference


def plain(tokenizer: Tokenizer) -> dict[str, Any]:
    return json.loads(tokenizer.to_str())


def test_kinds_are_recognised() -> None:
    assert recognise(plain(wordpiece())) == "wordpiece"
    assert recognise(plain(byte_level())) == "byte_level"
    assert recognise(plain(characters(lowercase=True, keep_space=False))) == "characters"
    assert recognise(plain(characters(lowercase=False, keep_space=True))) == "characters"


def changed(given: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    result = copy.deepcopy(given)
    *parents, last = path.split(".")
    section = result
    for name in parents:
        section = section[name]
    section[last] = value
    return result


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("normalizer", None),
        ("normalizer.new_option", True),
        ("normalizer", {"type": "Sequence", "normalizers": []}),
        ("pre_tokenizer", None),
        ("pre_tokenizer", {"type": "Whitespace"}),
        ("model.continuing_subword_prefix", "@@"),
        ("model.unk_token", "[NONE]"),
        ("model.new_option", 1),
        ("truncation", {"max_length": 8}),
        ("padding", {"pad_id": 0}),
        ("new_section", {}),
    ],
)
def test_wordpiece_with_anything_unusual_is_the_references(path: str, value: Any) -> None:
    assert recognise(changed(plain(wordpiece()), path, value)) is None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("normalizer", {"type": "NFC"}),
        ("pre_tokenizer.add_prefix_space", True),
        ("pre_tokenizer.use_regex", False),
        ("model.dropout", 0.1),
        ("model.ignore_merges", True),
        ("model.continuing_subword_prefix", "##"),
        ("model.end_of_word_suffix", "</w>"),
        ("model.byte_fallback", True),
        ("model.new_option", None),
        ("model.vocab", {"a": 0}),
    ],
)
def test_byte_level_with_anything_unusual_is_the_references(path: str, value: Any) -> None:
    assert recognise(changed(plain(byte_level()), path, value)) is None


def with_a_word() -> Tokenizer:
    tokenizer = wordpiece()
    tokenizer.add_tokens([AddedToken("quick brown", lstrip=True)])
    return tokenizer


def with_prefix_space() -> Tokenizer:
    tokenizer = byte_level()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


def composed() -> Tokenizer:
    tokenizer = byte_level()
    tokenizer.normalizer = normalizers.NFKC()
    return tokenizer


@pytest.mark.parametrize("make", [with_a_word, with_prefix_space, composed])
def test_what_is_not_known_goes_through_the_library_and_says_so(
    make: Callable[[], Tokenizer], caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = make()
    encoder = encoder_of(tokenizer)
    assert isinstance(encoder, Reference)
    assert len(caplog.records) == 1
    assert "every text goes through the library" in caplog.text
    given = encode(encoder, PROSE)
    library = tokenizer.encode_batch(PROSE, add_special_tokens=False)
    assert given.ids.tolist() == [index for own in library for index in own.ids]
    assert_equal(given, encode(reference_of(tokenizer), PROSE))
