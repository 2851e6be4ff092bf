import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from cleaning_cases import batch, only, reasons
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.cleaning.cleaner import Cleaner
from preprocessing.cleaning.scanning import Scan
from preprocessing.cleaning.sequences import FoldedWords, WordSequences
from preprocessing.storage import InputError
from preprocessing.texts import Texts

QUESTION = "which of the seven hills did the old king of rome choose for his house"  # 15 words


def matches(sequences: WordSequences, *texts: str) -> list[int]:
    column = Texts.of(pa.array(texts, pa.large_string()))
    return [int(bits) for bits in sequences.matches(FoldedWords.of(Scan.of(column)))]


def write_set(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_thirteen_words_in_a_row_contaminate_and_twelve_do_not() -> None:
    sequences = WordSequences([[QUESTION]], ngram=13, min_words=8)
    words = QUESTION.split()
    shared = [" ".join(["before", *words[1 : 1 + count], "after"]) for count in (12, 13, 14)]
    assert matches(sequences, *shared) == [0, 1, 1]
    assert sequences.num_sequences == 3
    broken = " ".join([*words[:12], "not", *words[12:]])
    assert matches(sequences, broken) == [0]


def test_case_punctuation_and_white_space_hide_nothing() -> None:
    sequences = WordSequences([["Don't stop; it's half-past 3 o'clock."]], ngram=6, min_words=6)
    assert matches(sequences, "he said: DONT STOP -\n\n “its HALFPAST” 3 O'Clock !") == [1]


def test_short_examples_match_as_a_whole() -> None:
    eight = "one two three four five six seven eight"
    sequences = WordSequences(
        [[eight, "just seven words are in this one", "Yes."]], ngram=13, min_words=8
    )
    assert matches(sequences, f"so {eight} then", "one two three four five six seven") == [1, 0]
    seven = "Just seven words are in this one"
    assert matches(sequences, seven + "!", "so " + seven, "yes", "oh yes") == [1, 0, 1, 0]


def test_chinese_is_compared_by_characters() -> None:
    sequences = WordSequences([["床前明月光，疑是地上霜。举头望明月"]], ngram=13, min_words=8)
    assert matches(sequences, "诗曰：床前明月光疑是地上霜举头望", "床前明月光疑是地上") == [1, 0]


def test_each_set_is_told_apart() -> None:
    sequences = WordSequences([["a b c"], ["b c d"], ["a b c", "x y z"]], ngram=3, min_words=1)
    assert matches(sequences, "a b c d", "b c d", "z x y z", "none") == [0b111, 0b010, 0b100, 0]


WORDS = st.lists(st.sampled_from(["a", "B", "c,", "..", "中"]), max_size=12)


def plain_words(words: list[str]) -> list[str]:
    return [word.lower().strip(",") for word in words if word != ".."]


@given(
    st.lists(WORDS, max_size=4), st.lists(WORDS, max_size=4), st.integers(1, 5), st.integers(1, 5)
)
@settings(deadline=None)
def test_matches_equal_the_plain_rule(
    examples: list[list[str]], texts: list[list[str]], ngram: int, min_words: int
) -> None:
    min_words = min(min_words, ngram)
    sequences = WordSequences([[" ".join(e) for e in examples]], ngram=ngram, min_words=min_words)

    def match(text: list[str], example: list[str]) -> bool:
        size = min(ngram, len(example))
        if size == 0 or (size < min_words and len(text) != size):
            return False
        grams = {tuple(example[i : i + size]) for i in range(len(example) - size + 1)}
        return any(tuple(text[i : i + size]) in grams for i in range(len(text)))

    expected = [
        int(any(match(plain_words(text), plain_words(example)) for example in examples))
        for text in texts
    ]
    assert matches(sequences, *(" ".join(text) for text in texts)) == expected


def test_contaminated_documents_go_and_are_counted_by_set(tmp_path: Path) -> None:
    sets = {
        "quiz": {
            "inputs": [write_set(tmp_path / "quiz.jsonl", [{"q": QUESTION, "a": "the palatine"}])],
            "text_fields": ["q", "a"],
        },
        "lines": {"inputs": [str(tmp_path / "*.txt")], "form": "lines"},
    }
    (tmp_path / "a.txt").write_text(f"{QUESTION}\nnothing else\n", encoding="utf-8")
    cleaner = Cleaner(only(decontaminate={"sets": sets}))
    texts = [f"Well, {QUESTION}?", "A clean text.", "The Palatine!", "Nothing else"]
    kept, rejected = cleaner.clean(batch(texts))
    assert kept.column("text").to_pylist() == ["A clean text."]
    assert {row.reason for row in rejected} == {"contaminated"}
    assert [row.detail for row in rejected] == [
        "shares words with lines, quiz",
        "shares words with quiz",
        "shares words with lines",
    ]
    assert cleaner.tables["documents by evaluation set"] == {"quiz": 2, "lines": 2}


def test_a_shorter_ngram_finds_more(tmp_path: Path) -> None:
    quiz = {"quiz": {"inputs": [write_set(tmp_path / "quiz.jsonl", [{"text": QUESTION}])]}}
    eight = " ".join(["x", *QUESTION.split()[:8], "y"])
    assert reasons(only(decontaminate={"sets": quiz}), [eight]) == [""]
    assert reasons(only(decontaminate={"sets": quiz, "ngram": 8}), [eight]) == ["contaminated"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "fine"}\n{"txet": "typing error"}\n', "missing_text"),
        ('{"text": "fine"}\n{"text"\n', "invalid_json"),
        ("\n", "no text"),
    ],
)
def test_a_set_that_cannot_be_read_as_a_whole_is_refused(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "a.jsonl").write_text(content, encoding="utf-8")
    config = only(decontaminate={"sets": {"quiz": {"inputs": [str(tmp_path / "a.jsonl")]}}})
    with pytest.raises(InputError, match=message):
        Cleaner(config)
