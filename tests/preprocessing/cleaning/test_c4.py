from pathlib import Path
from typing import Any

import pytest
from cleaning_cases import batch, cleaned, filters, reasons

from preprocessing.cleaning.cleaner import Cleaner
from preprocessing.storage import InputError

OFF: dict[str, Any] = {
    "terminal_punctuation": False,
    "min_line_words": None,
    "min_sentences": None,
    "javascript": False,
    "policies": False,
    "citation_marks": False,
    "lorem_ipsum": False,
    "curly_brackets": False,
}


def c4(**on: Any) -> dict[str, Any]:
    return {"c4": OFF | on}


def test_lines_without_a_terminal_mark_go() -> None:
    text = 'Home | About\nIt ended.\nDid it?\nIt did!\n"Yes."\nBut...\nAnd…\nSo, '
    assert cleaned(filters(**c4(terminal_punctuation=True)), text) == (
        'It ended.\nDid it?\nIt did!\n"Yes."'
    )


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("de", "Er sagte: „Ja.“\nMehr", "Er sagte: „Ja.“"),
        ("zh", "他说：“好。”\n首页\n好吗？", "他说：“好。”\n好吗？"),
        ("ja", "「はい。」\n目次\nそうです。", "「はい。」\nそうです。"),
        ("ar", "هل هذا كتاب؟\nالرئيسية", "هل هذا كتاب؟"),
        ("hi", "यह है।\nमुख", "यह है।"),  # no profile of its own
    ],
)
def test_terminal_marks_are_the_languages_own(language: str, text: str, expected: str) -> None:
    profile = "default" if language == "hi" else language
    assert cleaned(filters(profile, **c4(terminal_punctuation=True)), text, language) == expected


def test_lines_with_too_few_words_go_and_paragraphs_stay_apart() -> None:
    text = "One two three.\n\nOne two.\nFour five six.\nseven\n\neight\n\nNine ten eleven."
    assert cleaned(filters(**c4(min_line_words=3)), text) == (
        "One two three.\n\nFour five six.\n\nNine ten eleven."
    )
    assert cleaned(filters(**c4(min_line_words=2)), "One two.\nThree.") == "One two."


def test_lines_about_javascript_and_policies_go() -> None:
    text = "Enable JavaScript now.\nRead our Terms of Use.\nThis site uses cookies.\nThe text."
    assert cleaned(filters(**c4(javascript=True)), text).count("\n") == 2
    assert cleaned(filters(**c4(javascript=True, policies=True)), text) == "The text."
    german = "Es gilt die Datenschutzerklärung.\nDer Text."
    assert cleaned(filters("de", **c4(policies=True)), german, "de") == "Der Text."


def test_citation_marks_go_before_lines_are_judged() -> None:
    config = filters(**c4(citation_marks=True, terminal_punctuation=True))
    text = "It is so.[1][23]\nIt was.[citation needed]\nHistory[edit]\na[i] stays."
    assert cleaned(config, text) == "It is so.\nIt was.\na[i] stays."


def test_number_of_sentences() -> None:
    sentence = "This is one sentence."
    texts = [" ".join([sentence] * count) for count in (5, 4)]
    assert reasons(filters(**c4(min_sentences=5)), texts) == ["", "c4_sentences"]
    chinese = ["好。" * 5, "好。" * 4]
    assert reasons(filters("zh", **c4(min_sentences=5)), chinese, "zh") == ["", "c4_sentences"]


def test_fillers_and_code() -> None:
    texts = ["Lorem Ipsum dolor.", "if (a) { b }", "Fine (really)."]
    assert reasons(filters(**c4(lorem_ipsum=True)), texts) == ["c4_lorem_ipsum", "", ""]
    assert reasons(filters(**c4(curly_brackets=True)), texts) == ["", "c4_curly_brackets", ""]


def test_bad_words_are_whole_words_and_phrases(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("darn\n\nholy smoke\n混蛋\n", encoding="utf-8")
    config = filters(**c4(bad_words=str(path)))
    texts = ["Oh, DARN!", "darning", "Holy\nsmoke.", "holy cow, smoke", "这个混蛋说。", "混合蛋"]
    found = "c4_bad_words"
    assert reasons(config, texts) == [found, "", found, "", found, ""]


@pytest.mark.parametrize("content", [None, b"\n \n", b"\xff\xfe"])
def test_a_list_that_is_none_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"words\.txt"):
        Cleaner(filters(**c4(bad_words=str(path))))


def test_the_defaults_are_the_journals() -> None:
    four = "One two three four. " * 4
    five = four + "One two three."
    assert reasons(filters(c4={}), [four, five, five + "\nToo short."]) == ["c4_sentences", "", ""]
    assert cleaned(filters(c4={}), five + "\nToo short.") == five


def test_removed_lines_are_counted() -> None:
    cleaner = Cleaner(
        filters(**c4(terminal_punctuation=True, min_line_words=2, citation_marks=True))
    )
    cleaner.clean(batch(["a b.\nno end\nshort.\nno\nc d.[1]", "a b.[2][3]"], ["en", "en"]))
    assert cleaner.tables["documents repaired"] == {
        "c4_citation_marks": 2,
        "c4_terminal_punctuation": 1,
        "c4_line_words": 1,
    }
    assert cleaner.tables["repairs"] == {
        "c4_citation_marks": 3,
        "c4_terminal_punctuation": 2,  # "no" too: the first filter that drops a line counts it
        "c4_line_words": 1,
    }


def test_filtered_lines_stay_filtered() -> None:
    config = filters(c4={})
    text = "One two three four. " * 5 + "\nHome\n\nUse cookies or do not use cookies."
    once = cleaned(config, text)
    assert cleaned(config, once) == once
