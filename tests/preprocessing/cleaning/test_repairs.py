import unicodedata

import pytest
from cleaning_cases import NOTHING, batch, cleaned, decode, only
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.cleaning.cleaner import Cleaner
from preprocessing.cleaning.repairs import Repairs
from preprocessing.documents import document_id


@pytest.mark.parametrize(
    ("step", "given", "expected"),
    [
        ("html_entities", "Tom &amp; Jerry &lt;3 &#8364;5 &#x41;", "Tom & Jerry <3 €5 A"),
        ("html_entities", "&amp;lt;", "&lt;"),  # once
        ("html_entities", "R&D, AT&T; ?a=1&copy=2 &nosuch;", "R&D, AT&T; ?a=1&copy=2 &nosuch;"),
        ("control_characters", "a\x00b\x07c\x7fd\x9fe\ufefff\u00adg", "abcdefg"),
        ("control_characters", "a\tb\nc\x0cd\u200ce\u200df", "a\tb\nc\x0cd\u200ce\u200df"),
        ("white_space", "a \t b\xa0c\u3000d", "a b c d"),
        ("white_space", " a \n b\r\nc\rd\x0ce\u2028f ", "a\nb\nc\nd\ne\nf"),
        ("white_space", "\n\na\n\n\n\n b\n \nc\r\n\r\nd\n", "a\n\nb\n\nc\n\nd"),
        ("white_space", "a\n\nb\nc d", "a\n\nb\nc d"),
    ],
)
def test_worked_repairs(step: str, given: str, expected: str) -> None:
    assert cleaned(only(**{step: True}), given) == expected


@pytest.mark.parametrize(
    ("form", "given", "expected"),
    [
        ("nfc", "e\u0301ﬁ①Å", "éﬁ①Å"),
        ("nfkc", "e\u0301ﬁ①Å", "éfi1Å"),
        ("none", "e\u0301ﬁ①\u212b", "e\u0301ﬁ①\u212b"),
    ],
)
def test_unicode_forms(form: str, given: str, expected: str) -> None:
    assert cleaned(only(unicode=form), given) == expected


def test_every_step_sees_what_the_one_before_left() -> None:
    config = decode({"personal_data": None, "profiles": NOTHING["profiles"]})
    text = "caf&#101;\x00\u0301&#160;&#10;&#10;&#10;bar&#0;"
    assert cleaned(config, text) == "café\n\nbar\ufffd"


def test_a_cleaned_text_has_the_digest_of_what_it_is_now() -> None:
    kept, _ = Cleaner(only(white_space=True)).clean(batch(["a  b", "c d"]))
    assert kept.column("id").to_pylist() == [document_id("a b"), document_id("c d")]


def test_repairs_are_counted_by_documents_and_occurrences() -> None:
    cleaner = Cleaner(decode({"personal_data": None, "profiles": NOTHING["profiles"]}))
    cleaner.clean(
        batch(["a &amp; b &lt; c\x00\x01", "d  e  f \n", "e\u0301", "fine", "x&#x20;&#32;y"])
    )
    tables = cleaner.tables
    assert tables["documents repaired"] == {
        "html_entities": 2,
        "control_characters": 1,
        "white_space": 2,
        "unicode": 1,
    }
    assert tables["repairs"] == {
        "html_entities": 4,
        "control_characters": 2,
        "white_space": 4,  # two runs, the end, and the run that entities made
        "unicode": 1,
    }


def test_a_document_that_is_nothing_but_blanks_and_controls_is_rejected() -> None:
    _, rejected = Cleaner(only(control_characters=True)).clean(batch(["\x00\x01", " \n", "a"]))
    assert [(row.reason, row.offset) for row in rejected] == [("empty", 0), ("empty", 1)]


AWKWARD = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from("a \t\n\r\x00\x85\xa0\u3000\u2028\u0301é\uac00\u1161\ufeff;&#1"),
    ),
    max_size=40,
)


@given(AWKWARD, st.sampled_from(["nfc", "nfkc"]))
@settings(deadline=None, max_examples=300)
def test_repairs_done_twice_change_nothing_more(text: str, form: str) -> None:
    repairs = Repairs(decode({"html_entities": False, "unicode": form}))
    once = repairs.repair(text)
    before = dict(repairs.occurrences)
    assert repairs.repair(once) == once
    assert dict(repairs.occurrences) == before
    assert unicodedata.is_normalized(form.upper(), once)  # type: ignore[arg-type]


@given(st.lists(AWKWARD, max_size=5))
@settings(deadline=None, max_examples=200)
def test_a_column_is_repaired_as_its_texts_are(texts: list[str]) -> None:
    config = decode({})
    column = batch(texts).column("text")
    one_by_one = [Repairs(config).repair(text) for text in texts]
    assert Repairs(config).apply(column).to_pylist() == one_by_one
