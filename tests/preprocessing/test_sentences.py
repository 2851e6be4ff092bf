import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.sentences import split_sentences


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
