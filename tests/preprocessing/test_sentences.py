import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.sentences import sentence_starts, split_sentences
from preprocessing.texts import Texts

PIECES = [
    *".!?…؟۔।॥։።፧။។。！？｡‼⁇⁈⁉\n\r\v\f\x85\u2028\u2029\x1c\x1f\xa0\u3000 \t\0",
    *"\"'”’“‘„«»‹›()[]{}¿¡「」『』（）【】《》〈〉",
    *["a", "B", "I", "1", "é", "É", "ß", "Ⓐ", "²", "٣", "漢", "क", "Ա", "𐐀", "𐐨", "😀", "ǅ"],
    *["Mr", "No", "e.g", "J. R", "Messrs", "approx", ". ", ". ", '." ', "\0Mr. "],
]


def sentences(text: str) -> list[str]:
    return [text[start:stop] for start, stop in split_sentences(text)]


def test_the_worked_example_of_the_module_holds() -> None:
    text = 'Mr. Hale left. "Why?" she asked.\nHe met J. R. Thorne. 「行こう。」と言った。'
    assert sentences(text) == [
        "Mr. Hale left.",
        '"Why?" she asked.',
        "He met J. R. Thorne.",
        "「行こう。」",
        "と言った。",
    ]
    assert split_sentences(text)[:2] == [(0, 14), (15, 32)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It rained. We stayed.", ["It rained.", "We stayed."]),
        ("It rained. we stayed.", ["It rained. we stayed."]),
        ("It rained.We stayed.", ["It rained.We stayed."]),
        ('"Stop!" "Why?" He ran.', ['"Stop!"', '"Why?"', "He ran."]),
        ("Wait… Then go.", ["Wait…", "Then go."]),
        ("Well... Then go.", ["Well...", "Then go."]),
        ("Pay 3.50 now. 20 came.", ["Pay 3.50 now.", "20 came."]),
        ("(It did.) [See below.] So.", ["(It did.)", "[See below.]", "So."]),
        ("So did I. He left.", ["So did I.", "He left."]),
        ("Cats, e.g. Persians, i.e. Toms.", ["Cats, e.g. Persians, i.e. Toms."]),
        ("Dr. A. B. Cole (St. Ives) came.", ["Dr. A. B. Cole (St. Ives) came."]),
        ("See No. 5. No. He said no.", ["See No. 5.", "No.", "He said no."]),
        ("On Jan. 5 it fell.", ["On Jan. 5 it fell."]),
        ("Is it Mr.? Yes.", ["Is it Mr.?", "Yes."]),
        ("a title\n\n  the text\r\nend", ["a title", "the text", "end"]),
        ("Mr.\nHale", ["Mr.", "Hale"]),
        ("他来了。你呢？！“走！”他说", ["他来了。", "你呢？！", "“走！”", "他说"]),
        ("他说（真的。）。好", ["他说（真的。）。", "好"]),
        ("来的。 去的", ["来的。", "去的"]),
        ("هذا بيت. ذلك باب.", ["هذا بيت.", "ذلك باب."]),
        ("أين البيت؟ هنا.", ["أين البيت؟", "هنا."]),
        ("یہ گھر ہے۔ وہ دروازہ ہے۔", ["یہ گھر ہے۔", "وہ دروازہ ہے۔"]),
        ("वह आया। मैं गया॥ १ बजे।", ["वह आया।", "मैं गया॥", "१ बजे।"]),
        ("Նա եկավ։ Ես գնացի։", ["Նա եկավ։", "Ես գնացի։"]),
        ("እሱ መጣ። እኔ ሄድኩ።", ["እሱ መጣ።", "እኔ ሄድኩ።"]),
        ("何⁉走れ‼はい", ["何⁉", "走れ‼", "はい"]),
        ("a\vb\fc\x85d\u2028e\u2029f", ["a", "b", "c", "d", "e", "f"]),
        ("a\x1cb\x1dc\x1ed", ["a\x1cb\x1dc\x1ed"]),
        ("He left.\x1cShe came.\xa0We", ["He left.", "She came.", "We"]),
        ("  ", []),
        ("", []),
        (".", ["."]),
    ],
)
def test_sentences_end_by_the_rules(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@given(st.text(alphabet=st.sampled_from("aBI1.!?…。！？\"'”」)( \t\n\r\u3000\u2028Mr")))
def test_the_spans_are_an_exact_partition(text: str) -> None:
    position = 0
    for start, stop in split_sentences(text):
        assert start < stop
        assert not text[position:start].strip()
        assert text[start:stop] == text[start:stop].strip()
        position = stop
    assert not text[position:].strip()


@given(st.text(alphabet=st.sampled_from("aB.!?。” \nMr"), max_size=30), st.sampled_from("aB1。"))
def test_no_sentence_holds_a_line_end(text: str, first: str) -> None:
    parts = [text, first + text]
    joined = "\n".join(parts)
    assert not any("\n" in sentence for sentence in sentences(joined))
    assert sentences(joined) == [sentence for part in parts for sentence in sentences(part)]


@pytest.mark.parametrize("unit", [".", "!", "a.", ". ", "。", " ", "\n", '."', "Mr. "])
def test_time_is_linear_in_any_repeated_text(unit: str) -> None:
    text = "A" + unit * 100_000
    begin = time.process_time()
    split_sentences(text)
    # 0.10 s at most was measured; anything quadratic takes minutes.
    assert time.process_time() - begin < 5.0


def starts_by_reference(texts: list[str]) -> list[int]:
    places = []
    place = 0
    for text in texts:
        last = 0
        for start, _ in split_sentences(text):
            place += len(text[last:start].encode())
            places.append(place)
            last = start
        place += len(text[last:].encode())
    return places


def starts(texts: list[str]) -> list[int]:
    return sentence_starts(Texts.of(pa.array(texts, pa.large_string()))).tolist()


def test_starts_are_places_in_the_bytes_of_the_column() -> None:
    texts = Texts.of(pa.array(["spare", " Ça va? Où.", "", " \n", "来。去\nB! C", "x"])[1:])
    assert texts.offsets.tolist() == [5, 18, 18, 20, 34, 35]
    assert sentence_starts(texts).tolist() == [6, 14, 20, 26, 30, 33, 34]
    assert sentence_starts(Texts(np.zeros(0, np.uint8), np.zeros(1, np.int64))).tolist() == []


@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=30).map("".join), max_size=4))
def test_the_compiled_rules_equal_the_plain_ones(texts: list[str]) -> None:
    assert starts(texts) == starts_by_reference(texts)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4))
def test_the_compiled_rules_equal_the_plain_ones_on_any_unicode(texts: list[str]) -> None:
    assert starts(texts) == starts_by_reference(texts)


def test_every_character_is_to_the_compiled_rules_what_it_is_to_the_plain_ones() -> None:
    texts = [
        f"{character}. {character}B. C{character}. {character}. 1"
        for character in map(chr, range(0x40000))
        if not "\ud800" <= character <= "\udfff"
    ]
    assert starts(texts) == starts_by_reference(texts)
    # What lies above has no trait at all.
    above = [chr(point) for point in range(0x40000, 0x110000)]
    assert not any(
        one.isspace() or one.isdigit() or one.isalpha() or one.isupper() for one in above
    )


def test_many_sentences_are_found_in_one_text() -> None:
    assert starts(["a\n" * 5000]) == list(range(0, 10_000, 2))


@pytest.mark.parametrize(
    "name", ["en_novels", "de_novels", "zh_novels", "ja_aozora", "ar_tashkeela"]
)
@pytest.mark.parametrize(
    "size", [2_000_000, pytest.param(None, marks=pytest.mark.slow)], ids=["slice", "whole"]
)
def test_real_text_begins_its_sentences_alike_in_both(name: str, size: int | None) -> None:
    if "LEXMILL_DATA" not in os.environ:
        pytest.skip("LEXMILL_DATA is not set")
    paths = sorted((Path(os.environ["LEXMILL_DATA"]) / name).glob("*.txt"))
    raw = b"".join(path.read_bytes() for path in paths)[:size].decode(errors="ignore")
    texts = raw.split("\n\n")
    texts += [text.replace("\n", " ") for text in texts]
    expected = starts_by_reference(texts)
    assert len(expected) > 1000
    assert starts(texts) == expected
