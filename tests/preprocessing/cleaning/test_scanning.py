import os
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.cleaning.scanning import Scan, per_text
from preprocessing.texts import Texts

ALONE = [
    *((0x0E01, 0x0E4E), (0x0E81, 0x0EDF), (0x1000, 0x109F), (0x1780, 0x17DD), (0x3005, 0x3007)),
    *((0x3021, 0x3029), (0x3041, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF)),
    *((0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x20000, 0x3FFFF)),
]


def is_folded(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character).startswith("M")


def is_alone(character: str) -> bool:
    return (
        any(first <= ord(character) <= last for first, last in ALONE)
        and is_folded(character)
        and unicodedata.category(character) != "Nd"
    )


def words_of(text: str) -> list[str]:
    """The rule as it is stated, piece by piece."""
    words = []
    for run in text.split():
        pieces: list[str] = []
        for character in run:
            if is_alone(character) or not pieces or is_alone(pieces[-1][0]):
                pieces.append(character)
            else:
                pieces[-1] += character
        touching = any(map(is_alone, run))
        words += [piece for piece in pieces if not touching or any(map(is_folded, piece))]
    return words


def folded(word: str) -> str:
    lower = [c.lower() if len(c.lower()) == 1 else c for c in word if is_folded(c)]
    return "".join(lower)


def scan(*texts: str) -> Scan:
    return Scan.of(Texts.of(pa.array(texts, pa.large_string())))


def same_partition(hashes: list[int], values: list[str]) -> bool:
    """Equal values have equal hashes, different ones different hashes."""
    return len(set(zip(hashes, values, strict=True))) == len(set(hashes)) == len(set(values))


def check(texts: list[str]) -> None:
    found = scan(*texts)
    words = [words_of(text) for text in texts]
    flat = [word for own in words for word in own]
    assert found.num_words.tolist() == [len(own) for own in words]
    assert found.word_lengths.tolist() == [len(word) for word in flat]
    assert found.alphabetic.tolist() == [
        any(c.isalpha() or is_alone(c) for c in word) for word in flat
    ]
    assert found.alone.tolist() == [is_alone(word[0]) and len(word) == 1 for word in flat]
    assert same_partition(found.words.tolist(), flat)
    assert same_partition(found.folded.tolist(), [folded(word) for word in flat])
    assert [h == 0 for h in found.folded.tolist()] == [folded(word) == "" for word in flat]
    lines = [[line.strip() for line in text.split("\n") if line.strip()] for text in texts]
    flat_lines = [line for own in lines for line in own]
    assert found.num_lines.tolist() == [len(own) for own in lines]
    assert found.line_lengths.tolist() == [len(line) for line in flat_lines]
    assert found.last.tolist() == [ord(line[-1]) for line in flat_lines]
    assert found.ellipsis.tolist() == [line.endswith(("...", "…")) for line in flat_lines]
    assert found.bullet.tolist() == [line[0] in "•‣⁃◦∙▪●■*-" for line in flat_lines]
    assert np.diff(found.line_words).tolist() == [len(words_of(line)) for line in flat_lines]
    data = "".join(texts).encode()
    spans = zip(found.line_starts.tolist(), found.line_ends.tolist(), strict=True)
    assert [data[start:end].decode() for start, end in spans] == flat_lines
    assert found.hash_signs.tolist() == [text.count("#") for text in texts]
    ellipses = [text.count("...") + text.count("…") for text in texts]
    assert found.ellipses.tolist() == ellipses


def test_words_of_scripts_with_and_without_spaces() -> None:
    assert words_of("Two words") == ["Two", "words"]
    assert words_of("他说：“hi”。") == ["他", "说", "：“hi”。"]
    assert words_of("他说。") == ["他", "说"]
    assert words_of("a - b ...") == ["a", "-", "b", "..."]
    check(["Two words", "他说：“hi”。", "他说。", "a - b ...", "", "3月 ２日 x月。y"])


def test_lines_and_paragraphs() -> None:
    found = scan("one\n two... \n\n- three…\n\n\n#", "", "\n\nfour")
    assert found.line_offsets.tolist() == [0, 4, 4, 5]
    assert found.paragraph.tolist() == [True, False, True, True, True]
    assert found.ellipsis.tolist() == [False, True, True, False, False]
    assert found.bullet.tolist() == [False, False, True, False, False]
    assert found.ellipses.tolist() == [2, 0, 0]
    assert found.hash_signs.tolist() == [1, 0, 0]


CHARACTERS = st.one_of(
    st.characters(exclude_categories=["Cs"]),
    st.sampled_from("aA1 .…#-•\n\n  \u3000\u0301。，“”中文かなกำ"),
)


@given(st.lists(st.text(CHARACTERS, max_size=40), max_size=4))
@settings(deadline=None, max_examples=300)
def test_scan_equals_the_plain_rule(texts: list[str]) -> None:
    check(texts)


@pytest.mark.parametrize(
    "name",
    [
        "en_novels/novels_en.txt",
        "de_novels/novels_de.txt",
        "zh_novels/红楼梦.txt",
        "ja_aozora/aozora_ja.txt",
        "ar_tashkeela/val.diacritized.txt",
    ],
)
def test_scan_equals_the_plain_rule_on_real_text(name: str) -> None:
    if "LEXMILL_DATA" not in os.environ:
        pytest.skip("LEXMILL_DATA is not set")
    path = Path(os.environ["LEXMILL_DATA"]) / name
    check(path.read_text(encoding="utf-8")[:100_000].split("\n\n"))


def test_sums_per_text() -> None:
    values = np.array([1, 2, 3, 4], np.int32)
    assert per_text(values, np.array([0, 1, 1, 4])).tolist() == [1, 0, 9]
    assert per_text(values[:0], np.array([0, 0])).tolist() == [0]
