from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from corpora import make_text, prepare_config, run_stages, write_documents
from tokenizers import Tokenizer, models, pre_tokenizers

from preprocessing.commands import run_preparation
from preprocessing.settings import Preparation
from preprocessing.storage import InputError, Manifest
from preprocessing.tokenizers import SentencePieceConfig
from preprocessing.tokenizers.adoption import existing_file
from preprocessing.tokenizers.sentencepiece import TrainingLines, train_sentencepiece
from preprocessing.vocabulary import Vocabulary

ROAD = ("ingest", "deduplicate", "tokenizer")


def adopt(folder: Path, path: Path, **options: Any) -> Preparation:
    write_documents(folder / "raw" / "a.txt", make_text(40))
    preparation = prepare_config(
        folder, tokenizer={"kind": "existing", "path": str(path), "name": "adopted", **options}
    )
    run_stages(preparation, ROAD)
    return preparation


def write_tokenizer(path: Path, words: list[str]) -> Path:
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[-1])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return path


def test_sentencepiece_model_is_adopted_byte_for_byte(tmp_path: Path) -> None:
    config = SentencePieceConfig(kind="unigram", vocab_size=150)
    model = train_sentencepiece(config, TrainingLines([make_text(60)]))
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "spiece.model").write_bytes(model.serialized)
    preparation = adopt(tmp_path, folder)
    vocabulary = Vocabulary.load(preparation.tokenizer_directory)
    assert (preparation.tokenizer_directory / "tokenizer.model").read_bytes() == model.serialized
    assert vocabulary.encode(["Bada"]) == model.encode(["Bada"])
    assert vocabulary.mask_id == 4
    assert vocabulary.decode([2, *vocabulary.encode(["bada"])[0], 3]) == "[CLS] bada [SEP]"
    assert "languages" in Manifest.read(preparation.tokenizer_directory).facts
    with pytest.raises(InputError, match=r"a sentencepiece model, where a tokenizer\.json is"):
        _ = vocabulary.tokenizer


@pytest.mark.parametrize(
    ("words", "roles"),
    [
        (
            ["<pad>", "<s>", "</s>", "<mask>", "x", "<unk>"],
            {"pad": 0, "start": 1, "separator": 2, "mask": 3, "unknown": 5},
        ),
        (
            ["<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>", "<unk>"],
            {"start": 2, "separator": 3, "pad": 4, "mask": 5, "unknown": 6},
        ),
        (["[CLS]", "</s>", "x", "[UNK]"], {"start": 0, "separator": 1, "unknown": 3}),
    ],
)
def test_usual_names_are_recognised(
    tmp_path: Path, words: list[str], roles: dict[str, int]
) -> None:
    path = write_tokenizer(tmp_path / "given" / "tokenizer.json", words)
    vocabulary = Vocabulary.load(adopt(tmp_path, path).tokenizer_directory)
    assert {
        role: vocabulary.model.token_to_id(name) for role, name in vocabulary.names.items()
    } == roles
    for role in ("pad", "start", "separator", "mask"):
        if role not in roles:
            with pytest.raises(InputError, match=rf"tokenizer\.specials\.{role}"):
                getattr(vocabulary, f"{role}_id")


def test_unusual_names_are_given_and_belong_to_the_identity(tmp_path: Path) -> None:
    words = ["<|end|>", "<|fill|>", "x", "[UNK]"]
    path = write_tokenizer(tmp_path / "given" / "tokenizer.json", words)
    digests = set()
    for number, specials in enumerate(
        [{"separator": "<|end|>"}, {"separator": "<|end|>", "mask": "<|fill|>"}, {"mask": "x"}]
    ):
        preparation = adopt(tmp_path / str(number), path, specials=specials)
        vocabulary = Vocabulary.load(preparation.tokenizer_directory)
        digests.add(vocabulary.digest)
        assert vocabulary.names == {"unknown": "[UNK]", **specials}
    assert len(digests) == 3
    with pytest.raises(InputError, match=r"tokenizer\.specials: the vocabulary has no <none>"):
        adopt(tmp_path / "none", path, specials={"pad": "<none>"})


def test_an_export_with_a_model_and_what_became_of_it_means_the_model(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer.model"):
        (tmp_path / name).write_text("")
    assert existing_file(tmp_path) == tmp_path / "tokenizer.model"
    (tmp_path / "tokenizer.model").rename(tmp_path / "spiece.model")
    with pytest.raises(InputError, match="name the one that is meant"):
        existing_file(tmp_path)


def test_byte_level_tokenizer_json_stays_as_it_is(tmp_path: Path) -> None:
    write_documents(tmp_path / "own" / "raw" / "a.txt", make_text(40))
    own = prepare_config(tmp_path / "own", tokenizer={"kind": "byte_level_bpe", "vocab_size": 300})
    run_stages(own, ROAD)
    preparation = adopt(tmp_path, own.tokenizer_directory)
    name = "tokenizer.json"
    assert (preparation.tokenizer_directory / name).read_bytes() == (
        own.tokenizer_directory / name
    ).read_bytes()
    vocabulary = Vocabulary.load(preparation.tokenizer_directory)
    tokens = vocabulary.tokens(range(vocabulary.size))
    assert vocabulary.continues_word.tolist() == [
        i >= 5 and token[0] not in "ĠĊĉč" for i, token in enumerate(tokens)
    ]


@pytest.mark.parametrize(
    ("text", "said"), [("", "holds no pieces"), ("[PAD]\nthe\n", "it has no \\[UNK\\]")]
)
def test_vocabulary_that_cannot_be_one_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"vocab\.txt: .*{said}"):
        adopt(tmp_path, path)


def test_vocabulary_that_is_not_there_is_missed_before_the_corpus_is_read(tmp_path: Path) -> None:
    write_documents(tmp_path / "raw" / "a.txt", make_text(40))
    tokenizer = {"kind": "existing", "path": str(tmp_path / "nowhere"), "name": "adopted"}
    preparation = prepare_config(tmp_path, tokenizer=tokenizer)
    with pytest.raises(InputError, match=r"nowhere: no tokenizer\.json"):
        next(run_preparation(preparation))
    assert not preparation.documents_directory.exists()
