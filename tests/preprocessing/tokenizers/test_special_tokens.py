"""Special tokens of other families: their ids in every kind of vocabulary, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pydantic
import pytest
from corpora import make_text, prepare_config, run_stages, write_documents

from preprocessing.stages.train_tokenizer import train
from preprocessing.tokenizers import TokenizerConfig
from preprocessing.tokenizers.models import SentencePieceModel
from preprocessing.tokenizers.specials import check_special_tokens, roles_of
from preprocessing.tokenizers.template import add_template
from preprocessing.vocabulary import Vocabulary

KINDS: dict[str, dict[str, Any]] = {
    "wordpiece": {"kind": "wordpiece", "vocab_size": 220},
    "unigram": {"kind": "unigram", "vocab_size": 220},
    "bpe": {"kind": "sentencepiece_bpe", "vocab_size": 420, "byte_fallback": True},
    "byte_level": {"kind": "byte_level_bpe", "vocab_size": 320},
    "characters": {"kind": "characters", "vocab_size": 120},
}
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
ALBERT = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
ERNIE = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
T5 = ["<pad>", "</s>", "<unk>"]
XLNET = ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>"]


def vocabulary_of(tmp_path: Path, tokenizer: dict[str, Any]) -> Vocabulary:
    write_documents(tmp_path / "raw" / "a.txt", make_text(60))
    preparation = prepare_config(tmp_path, tokenizer=tokenizer)
    run_stages(preparation, ["ingest", "deduplicate", "tokenizer"])
    return Vocabulary.load(preparation.tokenizer_directory)


def decode(plain: dict[str, Any]) -> Any:
    return pydantic.TypeAdapter(TokenizerConfig).validate_json(json.dumps(plain), strict=True)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_them_under_the_ids_of_their_order(tmp_path: Path, kind: str) -> None:
    vocabulary = vocabulary_of(tmp_path, KINDS[kind] | {"special_tokens": XLNET, "sentinels": 2})
    assert vocabulary.tokens(range(11)) == [*XLNET, "<extra_id_0>", "<extra_id_1>"]
    assert (vocabulary.unknown_id, vocabulary.start_id, vocabulary.separator_id) == (0, 3, 4)
    assert (vocabulary.pad_id, vocabulary.mask_id, vocabulary.id_of("end")) == (5, 6, 7)
    assert vocabulary.sentinel_ids == (9, 10)
    assert not vocabulary.continues_word[:11].any()
    text = make_text(1)[0]
    (plain,) = vocabulary.encode([f"{text} <eop> <s>"])
    assert min(plain) >= 11 or set(plain) & set(range(11)) == {0}, "in a text they are text"
    unknown = {0} if kind in ("wordpiece", "unigram", "characters") else set()
    assert set(vocabulary.encode(["東"])[0]) & {0} == unknown


@pytest.mark.parametrize(
    ("tokens", "ids"),
    [
        (ROBERTA, {"start": 0, "pad": 1, "separator": 2, "unknown": 3, "mask": 4}),
        (ALBERT, {"pad": 0, "unknown": 1, "start": 2, "separator": 3, "mask": 4}),
        (ERNIE, {"pad": 0, "start": 1, "separator": 2, "mask": 3, "unknown": 4}),
        (T5, {"pad": 0, "separator": 1, "unknown": 2}),
    ],
    ids=["roberta", "albert", "ernie", "t5"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_the_ids_of_families(kind: str, tokens: list[str], ids: dict[str, int]) -> None:
    config = decode(KINDS[kind] | {"special_tokens": tuple(tokens)})
    model, _ = train(config, lambda: [make_text(60)])
    assert [model.id_to_token(index) for index in range(len(tokens))] == tokens
    assert {role: model.token_to_id(name) for role, name in roles_of(tokens).items()} == ids
    if isinstance(model, SentencePieceModel):
        processor = model.processor
        assert (processor.pad_id(), processor.unk_id()) == (ids["pad"], ids["unknown"])
        assert (processor.bos_id(), processor.eos_id()) == (ids.get("start", -1), ids["separator"])
        return
    tokenizer = model.tokenizer
    if kind in ("byte_level", "characters"):  # these get it on export, and keep their digest
        assert tokenizer.post_processor is None
        add_template(tokenizer, roles_of(tokens))
    (own,) = model.encode(["de mi"])
    before = [ids["start"]] if "start" in ids else []
    after = [ids["separator"]]
    alone, paired = tokenizer.encode("de mi"), tokenizer.encode("de mi", "de mi")
    assert alone.ids == [*before, *own, *after]
    assert paired.ids == [*before, *own, *after, *own, *after]
    second = len(own) + 1
    assert paired.type_ids == [0] * (len(paired.ids) - second) + [1] * second


def test_the_usual_ones_change_nothing(tmp_path: Path) -> None:
    usual = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    given = decode(KINDS["unigram"] | {"special_tokens": usual})
    assert given == decode(KINDS["unigram"])
    assert given.directory_name == "unigram-220-cased"
    other = decode(KINDS["unigram"] | {"special_tokens": tuple(ROBERTA)})
    assert other.directory_name == "unigram-220-cased-specials-263da560"
    assert decode(KINDS["unigram"] | {"special_tokens": usual[::-1]}).directory_name not in (
        given.directory_name,
        other.directory_name,
    )


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["<pad>", "[PAD]", "<unk>"], r"<pad> and \[PAD\] are one"),
        (["<pad>", "<unk>", "<eop>", "<eop>"], "<eop> and <eop> are one"),
        (["<pad>"], r"none is \[UNK\] or <unk>"),
        (["<unk>"], r"none is \[PAD\] or <pad>"),
        (["<pad>", "<unk>", "mask"], r"mask is not written \[...\] or <...>"),
        (["<pad>", "<unk>", "<a b>"], r"<a b> is not written"),
        (["<pad>", "<unk>", "[...]"], r"\[...\] is not written"),
        (["<pad>", "<unk>", "<extra_id_3>"], "<extra_id_3> is a sentinel"),
    ],
)
def test_what_cannot_be_trained_is_refused(tokens: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=f"special_tokens: .*{message}"):
        check_special_tokens(tokens, ["pad", "unknown"])
    with pytest.raises(pydantic.ValidationError, match=message):
        decode(KINDS["characters"] | {"special_tokens": tuple(tokens)})


def test_byte_level_needs_no_unknown_and_room_is_asked_for() -> None:
    config = decode(KINDS["byte_level"] | {"special_tokens": ("<pad>", "<|endoftext|>")})
    model, _ = train(config, lambda: [make_text(60)])
    assert [model.id_to_token(index) for index in (0, 1, 2)] == ["<pad>", "<|endoftext|>", "!"]
    with pytest.raises(pydantic.ValidationError, match="vocab_size must be at least 265"):
        decode({"kind": "byte_level_bpe", "vocab_size": 264, "special_tokens": tuple(XLNET)})
