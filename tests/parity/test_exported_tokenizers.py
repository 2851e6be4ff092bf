"""Each kind of vocabulary that is trained here, in transformers: the same ids, the same frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pydantic
import pytest
import torch
import transformers
from tokenizers import Tokenizer

from pipeline.huggingface.export import ExportError, export_model
from pipeline.huggingface.proof import TEXTS, compare_tokenizers
from pipeline.huggingface.tokenizer import read_tokenizer, write_tokenizer
from pipeline.models import ModelConfig, build_model
from pipeline.models.bert import BertConfig
from pipeline.models.roberta import RobertaConfig
from preprocessing.stages.train_tokenizer import train
from preprocessing.tokenizers import TokenizerConfig
from preprocessing.tokenizers.models import SentencePieceModel
from preprocessing.vocabulary import Vocabulary

KINDS: dict[str, dict[str, Any]] = {
    "wordpiece": {"kind": "wordpiece", "vocab_size": 220},
    "unigram": {"kind": "unigram", "vocab_size": 200},
    "unigram_folded": {"kind": "unigram", "vocab_size": 180, "normalization": "nmt_nfkc_cf"},
    "unigram_exact": {"kind": "unigram", "vocab_size": 200, "normalization": "identity"},
    "unigram_bytes": {"kind": "unigram", "vocab_size": 450, "byte_fallback": True},
    "bpe": {"kind": "sentencepiece_bpe", "vocab_size": 300},
    "bpe_bytes": {"kind": "sentencepiece_bpe", "vocab_size": 450, "byte_fallback": True},
    "byte_level": {"kind": "byte_level_bpe", "vocab_size": 320},
    "characters": {"kind": "characters", "vocab_size": 120, "lowercase": True},
    "characters_spaced": {"kind": "characters", "vocab_size": 120, "whitespace": "token"},
}
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
SHAPE = {"hidden_size": 8, "num_layers": 1, "num_heads": 2, "intermediate_size": 8}
MORE = (
    "",
    "   ",
    " a\u00a0b\u3000c \r\n",
    "no\nbreaks\n",
    "e\u0301 \ufb01 \u00bd \u200b",
    "\u2603\u2603 \u2603",
)


def trained(directory: Path, kind: str, special_tokens: list[str]) -> Path:
    plain = KINDS[kind] | {"special_tokens": special_tokens}
    config = pydantic.TypeAdapter(TokenizerConfig).validate_json(json.dumps(plain), strict=True)
    text = [*TEXTS, *("the lazy dog jumps over 31 brown foxes and a quick cat" for _ in range(20))]
    model, _ = train(config, lambda: [text])
    directory.mkdir()
    if isinstance(model, SentencePieceModel):
        (directory / "tokenizer.model").write_bytes(model.serialized)
    else:
        model.tokenizer.save(str(directory / "tokenizer.json"))
    return directory


def config_of(family: str, vocabulary: Vocabulary) -> ModelConfig:
    if family == "bert":
        return BertConfig(family="bert", vocab_size=vocabulary.size, **SHAPE)
    return RobertaConfig(family="roberta", vocab_size=vocabulary.size, **SHAPE)


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("kind", KINDS)
def test_transformers_gives_the_same_ids(tmp_path: Path, kind: str, family: str) -> None:
    special = ROBERTA if family == "roberta" else ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = Vocabulary.load(trained(tmp_path / "own", kind, special))
    config = config_of(family, vocabulary)
    torch.manual_seed(0)
    export_model(build_model(config), config, vocabulary.directory, tmp_path / "out", "")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert len(theirs) == vocabulary.size
    assert theirs.pad_token_id == vocabulary.pad_id
    assert theirs.mask_token_id == vocabulary.mask_id
    start, end = vocabulary.start_id, vocabulary.separator_id
    for text in (*TEXTS[:-1], *MORE):
        first, second = vocabulary.encode([text, "a dog"])
        assert theirs(text)["input_ids"] == [start, *first, end]
        paired = theirs(text, "a dog")
        assert paired["input_ids"] == [start, *first, end, *second, end]
        if family == "bert":
            expected = [0] * (len(first) + 2) + [1] * (len(second) + 1)
            assert paired["token_type_ids"] == expected
        else:
            assert "token_type_ids" not in paired
    assert theirs(f"a {special[-1]}")["input_ids"][-2] == vocabulary.mask_id
    settings = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert settings["do_lower_case"] is (kind in ("wordpiece", "unigram_folded", "characters"))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert ("tokenizer.model" in names) is ("unigram" in kind or kind.startswith("bpe"))


def test_a_tokenizer_without_a_frame_gets_one(tmp_path: Path) -> None:
    """Its mask stands for a word with the space before it, as its other pieces do."""
    directory = trained(tmp_path / "own", "byte_level", ROBERTA)
    assert json.loads((directory / "tokenizer.json").read_text())["post_processor"] is None
    (tmp_path / "out").mkdir()
    write_tokenizer(directory, tmp_path / "out", read_tokenizer(directory), 64, segments=False)
    written = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert written.encode("a", "b").tokens == ["<s>", "a", "</s>", "b", "</s>"]
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    mask = theirs.mask_token_id
    start, end = theirs.cls_token_id, theirs.sep_token_id
    assert theirs("a <mask>")["input_ids"] == [start, *theirs("a")["input_ids"][1:-1], mask, end]


def test_segments_and_ids_that_differ_are_found(tmp_path: Path) -> None:
    directory = trained(tmp_path / "own", "unigram", ROBERTA)
    info = read_tokenizer(directory)
    for name, segments in (("one", False), ("two", True)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"model_type": "bert"}')
        write_tokenizer(directory, tmp_path / name, info, 64, segments=segments)
        compare_tokenizers(directory, tmp_path / name, segments=segments)
    with pytest.raises(ExportError, match="says which segment"):
        compare_tokenizers(directory, tmp_path / "two", segments=False)
    with pytest.raises(ExportError, match="does not say which segment"):
        compare_tokenizers(directory, tmp_path / "one", segments=True)
    path = tmp_path / "one" / "tokenizer.json"
    plain = json.loads(path.read_text())
    plain["normalizer"] = None
    path.write_text(json.dumps(plain))
    with pytest.raises(ExportError, match="other ids for '  runs"):
        compare_tokenizers(directory, tmp_path / "one", segments=False)


def test_roberta_refuses_another_padding(tmp_path: Path) -> None:
    special = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
    vocabulary = Vocabulary.load(trained(tmp_path / "own", "unigram", special))
    config = config_of("roberta", vocabulary)
    with pytest.raises(ValueError, match="pads with id 0"):
        export_model(build_model(config), config, vocabulary.directory, tmp_path / "out", "")
