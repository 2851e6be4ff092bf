"""Each kind of vocabulary: what is in it, and that nothing but text and settings decides it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from corpora import make_text, prepare_config, run_stages, shard_rows, write_documents

from preprocessing.storage import InputError, Manifest
from preprocessing.tokenizers import CharactersConfig, SentencePieceConfig
from preprocessing.tokenizers import sentencepiece as training
from preprocessing.tokenizers.characters import train_characters
from preprocessing.tokenizers.models import TokenizersModel
from preprocessing.tokenizers.sentencepiece import TrainingLines, train_sentencepiece
from preprocessing.vocabulary import SPECIAL_TOKENS, Vocabulary

KINDS: dict[str, dict[str, Any]] = {
    "unigram": {"kind": "unigram", "vocab_size": 200},
    "bytes": {"kind": "unigram", "vocab_size": 400, "byte_fallback": True},
    "bpe": {"kind": "sentencepiece_bpe", "vocab_size": 200, "normalization": "nmt_nfkc_cf"},
    "byte_level": {"kind": "byte_level_bpe", "vocab_size": 300},
    "characters": {"kind": "characters", "vocab_size": 100, "whitespace": "token"},
}

TRAIN = """
import hashlib, json, sys
from pathlib import Path
import pydantic
from preprocessing.stages.train_tokenizer import train
from preprocessing.tokenizers import TokenizerConfig
from preprocessing.tokenizers import sentencepiece
from preprocessing.tokenizers.models import SentencePieceModel

texts, plain, threads = json.loads(Path(sys.argv[1]).read_text())
if threads:
    sentencepiece.NUM_THREADS = threads
config = pydantic.TypeAdapter(TokenizerConfig).validate_json(json.dumps(plain), strict=True)
model, _ = train(config, lambda: [texts[:50], texts[50:]])
is_file = isinstance(model, SentencePieceModel)
whole = model.serialized if is_file else model.tokenizer.to_str().encode()
pieces = "\\n".join(sorted(model.id_to_token(i) for i in range(model.size)))
print(hashlib.sha256(whole).hexdigest(), hashlib.sha256(pieces.encode()).hexdigest())
"""


def mixed_text() -> list[str]:
    """English-like words, and Chinese with ties in every count."""
    return make_text(60) + [
        " ".join(chr(0x4E00 + (7 * k + i) % 40) + "ab"[i % 2] for i in range(40)) for k in range(40)
    ]


def digests(
    folder: Path, plain: dict[str, Any], environment: dict[str, str], threads: int = 0
) -> list[str]:
    path = folder / "task.json"
    path.write_text(json.dumps([mixed_text(), plain, threads]))
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(path)],
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, **environment},
    )
    return done.stdout.split()


@pytest.mark.parametrize("kind", KINDS)
def test_training_depends_on_no_threads_and_no_hash_seeds(tmp_path: Path, kind: str) -> None:
    environments = (
        {"RAYON_NUM_THREADS": "1", "PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"},
        {"RAYON_NUM_THREADS": "4", "PYTHONHASHSEED": "2", "OMP_NUM_THREADS": "4"},
    )
    first, second = (digests(tmp_path, KINDS[kind], environment) for environment in environments)
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_the_pinned_number_of_threads_decides_no_piece(tmp_path: Path, kind: str) -> None:
    """It decides the last bits of a unigram model's scores, and so the order of its pieces."""
    found = {digests(tmp_path, KINDS[kind], {}, threads)[1] for threads in (1, 2, 16)}
    assert len(found) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_kind_is_made_and_knows_its_text(tmp_path: Path, kind: str) -> None:
    documents = [f"{text} [ MASK ] [MASK]" for text in make_text(60)]
    write_documents(tmp_path / "raw" / "a.txt", documents)
    preparation = prepare_config(tmp_path, tokenizer=KINDS[kind])
    run_stages(preparation, ["ingest", "deduplicate", "tokenizer"])
    vocabulary = Vocabulary.load(preparation.tokenizer_directory)
    assert vocabulary.tokens(range(5)) == list(SPECIAL_TOKENS)
    assert (vocabulary.pad_id, vocabulary.unknown_id, vocabulary.start_id) == (0, 1, 2)
    assert (vocabulary.separator_id, vocabulary.mask_id) == (3, 4)
    assert vocabulary.size <= KINDS[kind]["vocab_size"]
    (ids,) = vocabulary.encode([documents[0]])
    assert min(ids) >= 5  # the literal [MASK] is text
    expected = documents[0].lower() if kind == "bpe" else documents[0]
    assert vocabulary.decode(ids) == expected
    assert not vocabulary.continues_word[:5].any()
    run_stages(preparation, ["tokenize"])
    texts = {row["id"]: row["text"] for row in shard_rows(preparation.clean_directory, "train")}
    rows = shard_rows(preparation.tokens_directory, "train")
    assert len(rows) == len(texts)
    for row in rows:
        assert row["ids"] == vocabulary.encode([texts[row["id"]]])[0]
        assert sum(row["word_starts"]) >= len(texts[row["id"]].split())
    facts = Manifest.read(preparation.tokenizer_directory).facts
    fit = facts["languages"]["und"]
    assert fit["characters_covered"] == 1
    assert fit["unknown_share"] == 0
    assert fit["tokens_per_word"] >= 1
    assert fit["tokens_per_character"] <= 1.5


def test_unknown_bytes_fall_back_only_where_asked() -> None:
    lines = [make_text(60)]
    plain = train_sentencepiece(SentencePieceConfig(**KINDS["unigram"]), TrainingLines(lines))
    bytewise = train_sentencepiece(SentencePieceConfig(**KINDS["bytes"]), TrainingLines(lines))
    assert plain.token_to_id("[UNK]") in plain.encode(["東"])[0]
    assert [bytewise.id_to_token(i) for i in bytewise.encode(["東"])[0][-3:]] == [
        "<0xE6>", "<0x9D>", "<0xB1>"
    ]  # fmt: skip


def test_sentencepiece_options_reach_the_library() -> None:
    text = [["a1234 a1234 b567 longlonglong longlonglong"] * 5]
    options = {"kind": "unigram", "vocab_size": 60, "split_digits": True}
    model = train_sentencepiece(
        SentencePieceConfig(**options, max_sentencepiece_length=4), TrainingLines(text)
    )
    pieces = [model.id_to_token(i) for i in range(5, model.size)]
    assert max(map(len, pieces)) == 4
    assert not any(len(p) > 1 and any(c.isdigit() for c in p) for p in pieces)
    folded = train_sentencepiece(
        SentencePieceConfig(**options, normalization="nmt_nfkc_cf"), TrainingLines(text)
    )
    assert folded.encode(["LONG１"]) == folded.encode(["long1"])
    exact = train_sentencepiece(
        SentencePieceConfig(**options, normalization="identity"), TrainingLines(text)
    )
    assert exact.encode(["LONG"]) != exact.encode(["long"])


def test_nothing_is_dropped_from_the_training_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "MAX_TEXT_BYTES", 20)
    texts = ["one two three four five six", "x" * 50, "a\u2585b\x00c", "", "東" * 10]
    lines = TrainingLines([texts])
    cut = list(lines)
    assert max(len(line.encode()) for line in cut) <= 20
    assert "".join(cut) == "".join(texts).replace("\u2585", " ").replace("\x00", " ")
    assert cut[:2] == ["one two three four", " five six"]
    assert lines.counts == {
        "cut_at_white_space": 1,
        "cut_inside_words": 3,
        "reserved_characters": 2,
    }


def test_vocabulary_too_small_for_its_characters_is_refused() -> None:
    text = ["".join(chr(0x4E00 + i) for i in range(500))]
    config = SentencePieceConfig(kind="unigram", vocab_size=100, character_coverage=1.0)
    with pytest.raises(
        InputError, match=r"could not train a vocabulary of 100.*character_coverage"
    ):
        train_sentencepiece(config, TrainingLines([text]))


def test_characters_are_taken_by_frequency_until_they_cover_enough() -> None:
    text = [["aaaa bbb\tcc\u3000d é", "aB"]]

    def known(**options: Any) -> list[str]:
        config = CharactersConfig(kind="characters", **options)
        model = TokenizersModel(train_characters(config, lambda: text))
        return [model.id_to_token(i) for i in range(5, model.size)]

    assert known(vocab_size=100, coverage=1.0) == ["a", "b", "c", "B", "d", "é"]
    assert known(vocab_size=100, coverage=1.0, lowercase=True) == ["a", "b", "c", "d", "é"]
    assert known(vocab_size=7, coverage=1.0) == ["a", "b"]
    assert known(vocab_size=100, coverage=8 / 13) == ["a", "b"]
    assert known(vocab_size=100, coverage=8.1 / 13) == ["a", "b", "c"]
    assert known(vocab_size=100, coverage=1.0, whitespace="token")[:3] == ["a", " ", "b"]


def test_white_space_is_dropped_or_one_token() -> None:
    text = [["ab c"]]
    ids = {}
    for whitespace in ("drop", "token"):
        config = CharactersConfig(kind="characters", vocab_size=20, whitespace=whitespace)
        model = TokenizersModel(train_characters(config, lambda: text))
        (found,) = model.encode([" a\n\t b\u3000c "])
        ids[whitespace] = [model.id_to_token(i) for i in found]
    assert ids == {"drop": ["a", "b", "c"], "token": [" ", "a", " ", "b", " ", "c", " "]}
