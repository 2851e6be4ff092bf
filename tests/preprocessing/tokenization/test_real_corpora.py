"""All text there is, against the library: a slice of each corpus; in the slow tier, all of it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from vocabularies import assert_equal, byte_level, characters, column, reference_of, wordpiece

from preprocessing.sentences import sentence_starts
from preprocessing.tokenization.choice import encoder_of

CORPORA = (
    "ar_tashkeela", "de_novels", "en_novels", "glue", "ja_aozora", "lexicon", "ner_wnut17",
    "squad", "swag", "wikisplit", "wikitext-2", "xquad", "zh_chnsenticorp", "zh_cmrc2018",
    "zh_modern", "zh_novels",
)  # fmt: skip
SLICE = 40_000
KINDS = ("uncased", "cased", "bytes", "characters")


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".gz")


def slices(folder: Path) -> list[str]:
    """A piece from the middle of each of some files."""
    texts = []
    for path in files(folder)[:3]:
        with path.open("rb") as file:
            file.seek(path.stat().st_size // 2)
            texts.append(file.read(SLICE).decode(errors="ignore"))
    return texts


def make(kind: str, texts: list[str]) -> Tokenizer:
    match kind:
        case "bytes":
            return byte_level(size=2000, texts=texts)
        case "characters":
            return characters(lowercase=True, keep_space=False, texts=texts)
        case _:
            return wordpiece(size=2000, texts=texts, lowercase=kind == "uncased")


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, real_data: Path) -> Tokenizer:
    texts = [text[:5000] for name in CORPORA for text in slices(real_data / name)]
    return make(request.param, texts)


@pytest.mark.parametrize("name", CORPORA)
def test_slice_of_a_corpus_is_encoded_as_the_library_does(
    tokenizer: Tokenizer, real_data: Path, name: str
) -> None:
    texts = column([line for text in slices(real_data / name) for line in text.split("\n\n")])
    marks = sentence_starts(texts)
    assert len(marks) > 0
    given = encoder_of(tokenizer).encode(texts, marks)
    assert len(given.ids) > 1000
    assert_equal(given, reference_of(tokenizer).encode(texts, marks))


def documents(path: Path) -> Iterator[list[str]]:
    """The paragraphs of a file, some megabytes at a time."""
    rest = ""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        while block := file.read(2**22):
            *texts, rest = (rest + block).split("\n\n")
            yield texts
    yield [rest]


@pytest.mark.slow
@pytest.mark.parametrize("name", CORPORA)
def test_whole_corpus_is_encoded_as_the_library_does(
    tokenizer: Tokenizer, real_data: Path, name: str
) -> None:
    encoder = encoder_of(tokenizer)
    tokens = 0
    for path in files(real_data / name):
        for texts in documents(path):
            given = encoder.encode(column(texts), np.zeros(0, np.int64))
            expected = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            ids = np.concatenate([np.zeros(0, np.int64), *(own.ids for own in expected)])
            assert np.array_equal(given.ids, ids), path
            assert np.diff(given.offsets).tolist() == [len(own.ids) for own in expected], path
            tokens += len(ids)
    assert tokens > 10_000
