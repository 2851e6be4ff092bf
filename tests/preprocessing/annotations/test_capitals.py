import os
import time
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from corpora import make_text, prepare_config, run_stages, shard_rows, tree, write_documents
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.annotations.capitals import capitalised_words
from preprocessing.annotations.matching import traits
from preprocessing.marks import CAPITAL, WORD, document_marks
from preprocessing.settings import Preparation
from preprocessing.storage import InputError
from preprocessing.texts import Texts
from preprocessing.tokens import TokenStore
from preprocessing.vocabulary import Vocabulary

STAGES = ("ingest", "deduplicate", "tokenizer", "tokenize")
DOCUMENTS = ["McNeil's iPhone, 3D. Ébauche (Or) NASA's Ǆ 北京A中 Дом\u0301a!", "no, No NO\nThe end"]
CAPITALISED = ["McNeil", "Ébauche", "Or", "NASA", "Ǆ", "A", "Дом\u0301a", "No", "NO", "The"]


def found_in(texts: list[str]) -> list[str]:
    column = Texts.of(pa.array(texts, pa.large_string()))
    return [bytes(column.data[a:b]).decode() for a, b in capitalised_words(column).tolist()]


def reference(text: str) -> list[str]:
    """Character by character."""
    words, word = [], ""
    for character in f"{text} ":
        if traits()[ord(character)] & 1:
            word += character
        else:
            words.append(word)
            word = ""
    return [word for word in words if word and unicodedata.category(word[0]) in ("Lu", "Lt")]


def test_worked_example() -> None:
    column = Texts.of(pa.array(["McNeil's iPhone, 3D. Ébauche"]))
    assert capitalised_words(column).tolist() == [[0, 6], [21, 29]]
    assert found_in(DOCUMENTS) == CAPITALISED
    assert found_in([]) == found_in(["", ""]) == []


@given(
    st.lists(st.text(st.sampled_from("aAbB1 .'\u0301ÄäǅДжß中\U0001d400\U00010400"), max_size=12))
)
def test_words_are_those_of_a_plain_reference_text_by_text(texts: list[str]) -> None:
    assert found_in(texts) == [word for text in texts for word in reference(text)]
    column = Texts.of(pa.array(["Before", *texts], pa.large_string())[1:])
    words = capitalised_words(column)
    assert [bytes(column.data[a:b]).decode() for a, b in words.tolist()] == found_in(texts)


def plain_letters(text: str) -> list[str]:
    """What no normalisation of a vocabulary changes."""
    parts = unicodedata.normalize("NFKD", text).lower()
    return [character for character in parts if character.isascii() and character.isalnum()]


def prepare(folder: Path, tokenizer: dict[str, Any], **annotations: Any) -> Preparation:
    write_documents(folder / "raw" / "a.txt", [*DOCUMENTS, *make_text(40)])
    preparation = prepare_config(folder, tokenizer=tokenizer, corpus={"annotations": annotations})
    run_stages(preparation, STAGES)
    return preparation


@pytest.mark.parametrize(
    "tokenizer",
    [
        {"kind": "wordpiece", "vocab_size": 300, "lowercase": True},
        {"kind": "byte_level_bpe", "vocab_size": 400},
        {"kind": "unigram", "vocab_size": 300},
        {"kind": "characters", "vocab_size": 300},
    ],
    ids=lambda tokenizer: tokenizer["kind"],
)
def test_tokens_of_capitalised_words_are_marked_in_any_vocabulary(
    tokenizer: dict[str, Any], tmp_path: Path
) -> None:
    preparation = prepare(tmp_path, tokenizer, capitals=True)
    vocabulary = Vocabulary.load(preparation.tokenizer_directory)
    checked = 0
    for split in ("train", "heldout"):
        store = TokenStore(preparation.tokens_directory, split)
        texts = [row["text"] for row in shard_rows(preparation.clean_directory, split)]
        for number in range(store.num_documents):
            flags, starts = store.capitals(number), store.word_starts(number)
            marks = document_marks(store, number, CAPITAL | WORD)
            assert ((marks & CAPITAL > 0) == flags).all()
            assert ((marks & WORD > 0) == starts).all()
            # Runs of marked tokens, put together, are the capitalised words with what parts them.
            ids = store.ids(number)
            edges = np.flatnonzero(np.diff(np.r_[False, flags, False]))
            runs = [
                vocabulary.decode(ids[begin:end]) for begin, end in edges.reshape(-1, 2).tolist()
            ]
            letters = plain_letters("".join(runs))
            assert letters == plain_letters("".join(reference(texts[number])))
            checked += len(letters)
    assert checked > 500


def test_everything_else_is_as_without_capitals(tmp_path: Path) -> None:
    tokenizer = {"kind": "wordpiece", "vocab_size": 300, "lowercase": True}
    plain = prepare(tmp_path / "plain", tokenizer)
    off = prepare(tmp_path / "off", tokenizer, capitals=False)
    on = prepare(tmp_path / "on", tokenizer, capitals=True)
    assert plain.tokens_directory.name == off.tokens_directory.name != on.tokens_directory.name
    assert tree(plain.tokens_directory) == tree(off.tokens_directory)
    for split in ("train", "heldout"):
        with_them = shard_rows(on.tokens_directory, split)
        assert any(any(row["capitals"]) for row in with_them)
        for row in with_them:
            assert len(row.pop("capitals")) == len(row["ids"])
        assert with_them == shard_rows(plain.tokens_directory, split)
    store = TokenStore(plain.tokens_directory, "train")
    with pytest.raises(InputError, match=r"set corpus\.annotations\.capitals to true"):
        store.capitals(0)
    with pytest.raises(InputError, match="tokenize anew"):
        document_marks(store, 0, CAPITAL)


def test_a_token_across_the_border_of_a_word_belongs_to_it() -> None:
    from test_annotator import encoded_by

    from preprocessing.annotations.annotator import Annotations

    # bytes: 0 '  1 T 2 o 3 m 4 space 5 i 6 s; tokens 'T | om | is, then 'Tom | is, then a gap
    words = np.array([[1, 4]])
    none = np.zeros(0, np.int64)
    annotations = Annotations({}, none, np.zeros(0, np.bool_), words)
    assert annotations.marks.tolist() == [1, 4]
    for tokens, expected in (
        ([(0, 2), (2, 4), (5, 7)], [True, True, False]),
        ([(0, 4), (5, 7)], [True, False]),
        ([(0, 1), (1, 4), (4, 7)], [False, True, False]),
        ([(0, 1), (5, 7)], [False, False]),
        ([], []),
    ):
        flags = annotations.capitals(annotations.marks, encoded_by([tokens], [1, 4]))
        assert flags is not None
        assert flags.tolist() == expected
    unasked = Annotations({}, none, np.zeros(0, np.bool_))
    assert unasked.capitals(none, encoded_by([[(0, 2)]], [])) is None


@pytest.mark.slow
def test_capitals_are_found_at_over_fifty_megabytes_a_second() -> None:
    if "LEXMILL_DATA" not in os.environ:
        pytest.skip("LEXMILL_DATA is not set")
    text = (Path(os.environ["LEXMILL_DATA"]) / "en_novels" / "novels_en.txt").read_text("utf-8")
    column = Texts.of(pa.array([text[:8_000_000]]))
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        words = capitalised_words(column)
        times.append(time.perf_counter() - begin)
    assert len(words) > 100_000
    assert len(column.data) / min(times) > 50e6  # measured: 140 MB/s
