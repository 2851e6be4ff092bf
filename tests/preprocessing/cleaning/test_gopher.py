"""Each threshold with texts that lie exactly at it, and one beyond."""

from typing import Any

import pytest
from cleaning_cases import filters, reasons

QUALITY = (
    "min_words",
    "max_words",
    "min_mean_word_length",
    "max_mean_word_length",
    "max_symbol_ratio",
    "max_bullet_lines",
    "max_ellipsis_lines",
    "min_alphabetic_words",
    "min_stop_words",
)
REPETITION: dict[str, Any] = {
    "max_duplicate_lines": None,
    "max_duplicate_paragraphs": None,
    "max_duplicate_line_characters": None,
    "max_duplicate_paragraph_characters": None,
    "max_top_ngrams": [None] * 3,
    "max_duplicate_ngrams": [None] * 6,
}


def quality(key: str, texts: list[str], value: Any = ..., language: str = "en") -> list[str]:
    """Reasons with one filter, at the paper's threshold where none is given."""
    off = dict.fromkeys(name for name in QUALITY if name != key)
    given = {} if value is ... else {key: value}
    return reasons(filters(language, gopher=off | given), texts, language)


def repetition(key: str, texts: list[str], value: Any = ...) -> list[str]:
    off = {name: none for name, none in REPETITION.items() if name != key}
    given = {} if value is ... else {key: value}
    return reasons(filters(repetition=off | given), texts)


def words(count: int, *, start: int = 0) -> list[str]:
    """Different words of seven characters."""
    return [f"w{number:06d}" for number in range(start, start + count)]


def test_number_of_words() -> None:
    texts = [" ".join(words(count)) for count in (49, 50, 100_000, 100_001)]
    assert quality("min_words", texts) == ["gopher_word_count", "", "", ""]
    assert quality("max_words", texts) == ["", "", "", "gopher_word_count"]
    assert quality("min_words", ["a b c", "a b"], 3) == ["", "gopher_word_count"]


def test_mean_word_length() -> None:
    texts = [
        "aa aaa aaaa",
        "aa aaa aaa",
        "aaaaaaaaaa " * 9 + "a" * 10,
        "aaaaaaaaaa " * 9 + "a" * 11,
    ]
    reason = "gopher_mean_word_length"
    assert quality("min_mean_word_length", texts) == ["", reason, "", ""]
    assert quality("max_mean_word_length", texts) == ["", "", "", reason]


def test_mean_word_length_says_nothing_of_scripts_without_spaces() -> None:
    texts = ["他说了一句话。 AI", "我 在 a b c d"]
    reason = "gopher_mean_word_length"
    assert quality("min_mean_word_length", texts, 3.0) == ["", reason]


def test_symbols_a_word() -> None:
    ten = "one two three four five six seven eight nine ten"
    reason = "gopher_symbol_ratio"
    assert quality("max_symbol_ratio", [f"{ten}#", f"{ten}##"]) == ["", reason]
    assert quality("max_symbol_ratio", [f"{ten}...", f"{ten}…", f"{ten}... {ten}…"]) == [
        "",
        "",
        "",
    ]
    assert quality("max_symbol_ratio", [f"{ten}......", f"{ten}...…"]) == [reason, reason]
    assert quality("max_symbol_ratio", [f"#{ten}..."]) == [""]  # each symbol by itself


def test_bullet_lines() -> None:
    texts = ["\n".join(["- item"] * bullets + ["text"] * (10 - bullets)) for bullets in (9, 10)]
    assert quality("max_bullet_lines", texts) == ["", "gopher_bullet_lines"]
    marks = [f"{mark} item\n\n{mark} item" for mark in "•*●–"]
    assert quality("max_bullet_lines", marks) == ["gopher_bullet_lines"] * 3 + [""]


def test_lines_that_end_in_an_ellipsis() -> None:
    texts = ["\n".join(["So..."] * n + ["Text."] * (10 - n)) for n in (3, 4)]
    assert quality("max_ellipsis_lines", texts) == ["", "gopher_ellipsis_lines"]
    assert quality("max_ellipsis_lines", ["So… \nSo ..\nSo.\nSo"]) == [""]


def test_words_with_a_letter() -> None:
    texts = [" ".join(["word"] * letters + ["12:30"] * (10 - letters)) for letters in (8, 7)]
    assert quality("min_alphabetic_words", texts) == ["", "gopher_alphabetic_words"]


def test_stop_words() -> None:
    texts = ["The end", "the The THE", 'End, that; "of"', "nothing here"]
    reason = "gopher_stop_words"
    assert quality("min_stop_words", texts) == [reason, reason, "", reason]
    assert quality("min_stop_words", texts, 1) == ["", "", "", reason]
    assert quality("min_stop_words", ["Der Hund und", "der"], language="de") == ["", reason]
    assert quality("min_stop_words", ["他的书是我的。", "葡萄美酒"], language="zh") == ["", reason]
    assert quality("min_stop_words", ["彼は本を読んだ。", "東京都"], language="ja") == ["", reason]
    assert quality("min_stop_words", ["هذا الكتاب في البيت", "كتاب"], language="ar") == ["", reason]


def test_a_profile_without_stop_words_asks_for_none() -> None:
    assert quality("min_stop_words", ["nothing"], language="default") == [""]


def blocks(different: int, same: int, size: int = 7) -> list[str]:
    """Lines of ``size`` characters, of which ``same - 1`` are duplicates."""
    return [f"l{number:0{size - 1}d}" for number in range(different)] + ["x" * size] * same


@pytest.mark.parametrize(
    ("key", "separator", "reason"),
    [
        ("max_duplicate_lines", "\n", "gopher_duplicate_lines"),
        ("max_duplicate_paragraphs", "\n\n", "gopher_duplicate_paragraphs"),
    ],
)
def test_duplicate_lines_and_paragraphs(key: str, separator: str, reason: str) -> None:
    texts = [separator.join(blocks(different, same)) for different, same in ((6, 4), (5, 5))]
    assert repetition(key, texts) == ["", reason]  # 3 of 10, and 4 of 10
    assert repetition(key, ["one\none\none" if separator == "\n\n" else "one\ntwo"]) == [""]


@pytest.mark.parametrize(
    ("key", "separator", "reason"),
    [
        ("max_duplicate_line_characters", "\n", "gopher_duplicate_line_characters"),
        ("max_duplicate_paragraph_characters", "\n\n", "gopher_duplicate_paragraph_characters"),
    ],
)
def test_characters_in_duplicates(key: str, separator: str, reason: str) -> None:
    at = separator.join(["x" * 10, "x" * 10, "y" * 30])  # 10 of 50 characters
    beyond = separator.join(["x" * 10, "x" * 10, "y" * 29])
    assert repetition(key, [at, beyond]) == ["", reason]


@pytest.mark.parametrize(("n", "most"), [(2, 0.20), (3, 0.18), (4, 0.16)])
def test_most_frequent_ngram(n: int, most: float) -> None:
    occurrences = 5
    total = round(n * occurrences / most)
    assert total * most == pytest.approx(n * occurrences, abs=most / 2)
    top = words(n)

    def text(count: int) -> str:
        others = words(count - n * occurrences, start=100)
        cut = len(others) // occurrences
        parts = [top + others[i * cut : (i + 1) * cut] for i in range(occurrences)]
        rest = others[occurrences * cut :]
        return " ".join([word for part in [*parts, rest] for word in part])

    thresholds = [most if m == n else None for m in (2, 3, 4)]
    within = text(-int(-n * occurrences // most))  # rounded up: not more than the share
    beyond = text(int(n * occurrences / most - 1e-9))
    found = repetition("max_top_ngrams", [within, beyond], thresholds)
    assert found == ["", f"gopher_top_{n}gram"]


@pytest.mark.parametrize(
    ("n", "most"), [(5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)]
)
def test_duplicate_ngrams(n: int, most: float) -> None:
    """100 words, of which 100 most come again."""
    count = round(100 * most)

    def text(repeated: int) -> str:
        start = words(100 - repeated)
        return " ".join(start + start[:repeated])

    thresholds = [most if m == n else None for m in range(5, 11)]
    found = repetition("max_duplicate_ngrams", [text(count), text(count + 1)], thresholds)
    assert found == ["", f"gopher_duplicate_{n}gram"]


def test_the_papers_table_is_the_default() -> None:
    """A text fails the first of the n-gram filters whose limit it passes."""
    start = words(100)
    share = {n: " ".join(start + start[:n]) for n in (10, 11, 12, 13, 18)}
    found = repetition("max_duplicate_ngrams", list(share.values()))
    # 11 / 111 < 0.10 < 12 / 112 < 0.11; 18 / 118 > 0.15
    assert found == [
        "",
        "",
        "gopher_duplicate_10gram",
        "gopher_duplicate_9gram",
        "gopher_duplicate_5gram",
    ]


def test_details_say_what_and_how_much() -> None:
    from cleaning_cases import batch

    from preprocessing.cleaning.cleaner import Cleaner

    _, (row,) = Cleaner(filters(gopher={})).clean(batch(["one two"], ["en"]))
    assert row.detail == "number of words 2; at least 50 and at most 100000"
    assert row.source == "a.txt"
    assert row.id is not None
