"""Shingles against a plain reference, in every script."""

import itertools
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.duplicates.shingles import shingle_hashes
from preprocessing.texts import Texts

WITHOUT_SPACES = ((0x0E00, 0x0EFF), (0x3040, 0x30FF), (0x3400, 0x9FFF), (0x20000, 0x3FFFF))


def hashes(*texts: str, ngram: int = 3) -> list[list[int]]:
    found, offsets = shingle_hashes(Texts.of(pa.array(texts, pa.large_string())), ngram)
    return [found[a:b].tolist() for a, b in itertools.pairwise(offsets.tolist())]


def words(text: str) -> list[str]:
    """What the module's first lines say, in plain Python."""
    found, current = [], ""
    for character in text:
        point = ord(character)
        letter = point < 0x40000 and unicodedata.category(character)[0] in "LMN"
        lower = character.lower()
        lower = lower if len(lower) == 1 else character
        alone = letter and any(a <= point <= b for a, b in WITHOUT_SPACES)
        if letter and not alone:
            current += lower
            continue
        found += [current] if current else []
        found += [lower] if alone else []
        current = ""
    return found + ([current] if current else [])


def shingles(text: str, ngram: int) -> list[tuple[str, ...]]:
    own = words(text)
    if len(own) < ngram:
        return [tuple(own)] if own else []
    return [tuple(own[start : start + ngram]) for start in range(len(own) - ngram + 1)]


def test_worked_example() -> None:
    text, same, other, short, blank = hashes(
        "The night, so dark.", "the NIGHT -- so\n\ndark", "the night so light", "the night", "... !"
    )
    assert text == same
    assert len(text) == 2
    assert other[0] == text[0], "the night so"
    assert other[1] != text[1]
    assert len(short) == 1
    assert short[0] not in text
    assert blank == []


def test_words_are_not_characters_and_order_counts() -> None:
    (a,), (b,), (c,) = hashes("ab c", "a bc", "c ab", ngram=2)
    assert len({a, b, c}) == 3


def test_scripts_without_spaces_have_a_word_a_character() -> None:
    han, spaced, mixed = hashes("春眠不觉晓", "春眠 不，觉\n晓", "GPT春眠不")
    assert han == spaced
    assert len(han) == 3
    assert len(mixed) == 2
    assert mixed[1] == han[0]
    (arabic,) = hashes("السلام عليكم ورحمة الله")
    assert len(arabic) == 2, "scripts with spaces keep their words whole"


def test_longest_and_shortest_windows() -> None:
    text = " ".join(str(number) for number in range(100))
    assert [len(hashes(text, ngram=n)[0]) for n in (1, 2, 64, 100, 101)] == [100, 99, 37, 1, 1]


@pytest.mark.parametrize("ngram", [1, 2, 5])
@given(
    texts=st.lists(
        st.text(st.one_of(st.sampled_from("ab \nB."), st.sampled_from("一二ก"), st.characters()))
    )
)
def test_hashes_are_equal_where_the_shingles_are(ngram: int, texts: list[str]) -> None:
    texts = [text for text in texts if not any(_elsewhere(c) for c in text)]
    got = hashes(*texts, ngram=ngram)
    meant = [shingles(text, ngram) for text in texts]
    assert [len(own) for own in got] == [len(own) for own in meant]
    pairs = {
        (number, shingle)
        for own, expected in zip(got, meant, strict=True)
        for number, shingle in zip(own, expected, strict=True)
    }
    assert len(pairs) == len({number for number, _ in pairs}) == len({s for _, s in pairs})


def _elsewhere(character: str) -> bool:
    """Scripts without spaces that the reference here leaves out, and half of a pair."""
    point = ord(character)
    return 0xD800 <= point <= 0xDFFF or any(
        low <= point <= high
        for low, high in (
            (0x1000, 0x109F),
            (0x1780, 0x17FF),
            (0x2E80, 0x2FDF),
            (0x3005, 0x3007),
            (0x31F0, 0x31FF),
            (0xF900, 0xFAFF),
            (0xFF66, 0xFF9F),
            (0x1B000, 0x1B16F),
        )
    )


def test_a_slice_of_a_column_gives_the_same() -> None:
    column = pa.array(["one two three four", "five six seven", "eight nine ten"], pa.large_string())
    whole, offsets = shingle_hashes(Texts.of(column), 2)
    part, own = shingle_hashes(Texts.of(column.slice(1, 2)), 2)
    assert np.array_equal(part, whole[offsets[1] :])
    assert np.array_equal(own, offsets[1:] - offsets[1])
