"""Tokens that stand for removed spans: trained into every kind of vocabulary, found in others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from corpora import make_text, prepare_config, run_stages, shard_rows, write_documents
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from configs.schema import ConfigError
from preprocessing.building import special_ids
from preprocessing.vocabulary import SPECIAL_TOKENS, Vocabulary

KINDS: dict[str, dict[str, Any]] = {
    "wordpiece": {"kind": "wordpiece", "vocab_size": 220},
    "unigram": {"kind": "unigram", "vocab_size": 220},
    "bpe": {"kind": "sentencepiece_bpe", "vocab_size": 220},
    "byte_level": {"kind": "byte_level_bpe", "vocab_size": 320},
    "characters": {"kind": "characters", "vocab_size": 120},
}
ROAD = ["ingest", "deduplicate", "tokenizer"]


@pytest.mark.parametrize("kind", KINDS)
def test_trained_vocabularies_have_them_behind_the_other_special_tokens(
    tmp_path: Path, kind: str
) -> None:
    documents = [f"{text} <extra_id_0> <extra_id_3>" for text in make_text(60)]
    write_documents(tmp_path / "raw" / "a.txt", documents)
    preparation = prepare_config(tmp_path, tokenizer=KINDS[kind] | {"sentinels": 7})
    assert preparation.tokenizer.directory_name.endswith("-7-sentinels")
    run_stages(preparation, [*ROAD, "tokenize"])
    vocabulary = Vocabulary.load(preparation.tokenizer_directory)
    assert vocabulary.sentinel_ids == special_ids(vocabulary).sentinels == tuple(range(5, 12))
    assert vocabulary.tokens(range(5)) == list(SPECIAL_TOKENS)
    assert vocabulary.tokens([5, 11]) == ["<extra_id_0>", "<extra_id_6>"]
    assert vocabulary.size <= KINDS[kind]["vocab_size"]
    assert not vocabulary.continues_word[:12].any()
    (expected,) = vocabulary.encode(documents[:1])
    assert not set(expected) & set(vocabulary.sentinel_ids), "in a text they are text"
    texts = {row["id"]: row["text"] for row in shard_rows(preparation.clean_directory, "train")}
    for row in shard_rows(preparation.tokens_directory, "train"):
        assert row["ids"] == vocabulary.encode([texts[row["id"]]])[0]


def test_a_vocabulary_is_the_same_as_ever_without_them(tmp_path: Path) -> None:
    for name, extra in (("plain", {}), ("none", {"sentinels": 0})):
        write_documents(tmp_path / name / "raw" / "a.txt", make_text(40))
        preparation = prepare_config(tmp_path / name, tokenizer=KINDS["wordpiece"] | extra)
        assert preparation.tokenizer.directory_name == "wordpiece-220-uncased"
        run_stages(preparation, ROAD)
    files = [
        tmp_path / name / "data" / "tokenizers" / "wordpiece-220-uncased" / "manifest.json"
        for name in ("plain", "none")
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert "sentinels" not in files[0].read_text()


def adopted(tmp_path: Path, words: list[str], special: list[str]) -> Vocabulary:
    pieces = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(pieces, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special])
    (tmp_path / "given").mkdir()
    tokenizer.save(str(tmp_path / "given" / "tokenizer.json"))
    write_documents(tmp_path / "raw" / "a.txt", make_text(20))
    given = {"kind": "existing", "path": str(tmp_path / "given"), "name": "given"}
    preparation = prepare_config(tmp_path, tokenizer=given)
    run_stages(preparation, ROAD)
    return Vocabulary.load(preparation.tokenizer_directory)


def test_t5s_are_recognised_from_the_end_backwards(tmp_path: Path) -> None:
    names = [f"<extra_id_{number}>" for number in range(99, -1, -1)]
    words = ["<pad>", "</s>", "<unk>", "a", "b", *names]
    vocabulary = adopted(tmp_path, words, ["<pad>", "</s>", "<unk>", *names])
    assert vocabulary.sentinel_ids == tuple(range(104, 4, -1))
    assert vocabulary.separator_id == 1
    assert special_ids(vocabulary).start == -1


def test_they_become_special_where_they_are_not_and_end_at_a_gap(tmp_path: Path) -> None:
    words = ["<pad>", "</s>", "<unk>", "a", "<extra_id_0>", "<extra_id_1>", "<extra_id_3>"]
    vocabulary = adopted(tmp_path, words, ["<pad>"])
    assert vocabulary.sentinel_ids == (4, 5)
    assert vocabulary.encode(["a <extra_id_3>"]) == [[3, 6]], "a word like any other"


@pytest.mark.parametrize(("kind", "least"), [("wordpiece", 300), ("characters", 206)])
def test_room_for_them_is_asked_for(tmp_path: Path, kind: str, least: int) -> None:
    given = KINDS[kind] | {"vocab_size": least - 1, "sentinels": 200}
    with pytest.raises(ConfigError, match=f"vocab_size must be at least {least}"):
        prepare_config(tmp_path, tokenizer=given)
