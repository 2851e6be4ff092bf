import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from preprocessing.cleaning.ngrams import (
    duplicate_ngrams,
    found_in,
    hash_table,
    ngram_hashes,
    top_ngram,
)


def arrays(
    texts: list[str],
) -> tuple[NDArray[np.uint64], NDArray[np.int32], NDArray[np.int64], NDArray[np.bool_]]:
    """Letters as items: an ``a`` has the hash 98 and the length 1, a ``b`` the length 2 ..."""
    codes = np.array([ord(c) for text in texts for c in text], np.int64)
    offsets = np.cumsum([0, *map(len, texts)])
    lengths = (codes - ord("a") + 1).astype(np.int32)
    return (codes + 1).astype(np.uint64), lengths, offsets, np.ones(len(texts), np.bool_)


def length(text: str, places: set[int]) -> int:
    return sum(ord(text[place]) - ord("a") + 1 for place in places)


def plain_duplicates(text: str, n: int) -> int:
    grams = [text[i : i + n] for i in range(len(text) - n + 1)]
    covered = {j for i, gram in enumerate(grams) if gram in grams[:i] for j in range(i, i + n)}
    return length(text, covered)


def plain_tops(text: str, n: int) -> set[int]:
    """What every most frequent and then longest n-gram covers."""
    grams = [text[i : i + n] for i in range(len(text) - n + 1)]
    rank = {gram: (grams.count(gram), length(gram, set(range(n)))) for gram in grams}
    best = max(rank.values(), default=(0, 0))
    if best[0] < 2:
        return {0}
    return {
        length(text, {j for i, g in enumerate(grams) if g == gram for j in range(i, i + n)})
        for gram in rank
        if rank[gram] == best
    }


@pytest.mark.parametrize(
    ("text", "n", "duplicates", "top"),
    [
        ("abcabca", 3, 3 + 1 + 2 + 1, 2 * (1 + 2 + 3)),  # items 3 to 6; "abc" twice
        ("abcabca", 7, 0, 0),
        ("abab", 2, 1 + 2, 2 * (1 + 2)),
        ("aaaa", 2, 3, 4),  # overlapping occurrences count each item once
        ("ababcc", 1, 1 + 2 + 3, 3 + 3),  # of equally frequent ones the longest: "c"
        ("abcd", 1, 0, 0),
        ("", 1, 0, 0),
    ],
)
def test_worked_repetitions(text: str, n: int, duplicates: int, top: int) -> None:
    hashes, lengths, offsets, active = arrays([text])
    assert duplicate_ngrams(hashes, lengths, offsets, active, n).tolist() == [duplicates]
    assert top_ngram(hashes, lengths, offsets, active, n).tolist() == [top]


@given(st.lists(st.text("abc", max_size=30), max_size=4), st.integers(1, 5))
@settings(deadline=None)
def test_repetitions_equal_the_plain_count(texts: list[str], n: int) -> None:
    hashes, lengths, offsets, active = arrays(texts)
    duplicates = duplicate_ngrams(hashes, lengths, offsets, active, n).tolist()
    assert duplicates == [plain_duplicates(text, n) for text in texts]
    tops = top_ngram(hashes, lengths, offsets, active, n).tolist()
    assert all(top in plain_tops(text, n) for top, text in zip(tops, texts, strict=True))


@given(st.text("ab", max_size=40), st.integers(1, 8))
@settings(deadline=None)
def test_longer_ngrams_never_cover_more(text: str, n: int) -> None:
    hashes, lengths, offsets, active = arrays([text])
    shorter, longer = (duplicate_ngrams(hashes, lengths, offsets, active, m)[0] for m in (n, n + 1))
    assert longer <= shorter


def test_texts_that_are_not_active_are_left_out() -> None:
    hashes, lengths, offsets, active = arrays(["aaa", "bbb"])
    active[0] = False
    assert duplicate_ngrams(hashes, lengths, offsets, active, 1).tolist() == [0, 4]
    assert top_ngram(hashes, lengths, offsets, active, 1).tolist() == [0, 6]


@given(st.lists(st.text("abc", max_size=12), max_size=4), st.integers(1, 4))
@settings(deadline=None)
def test_ngram_hashes_know_equal_ngrams_and_no_others(texts: list[str], n: int) -> None:
    hashes, _, offsets, _ = arrays(texts)
    grams = ngram_hashes(hashes, offsets, n).tolist()
    plain = [
        text[i : i + n] if i + n <= len(text) else "" for text in texts for i in range(len(text))
    ]
    assert [gram == 0 for gram in grams] == [one == "" for one in plain]
    assert len(set(zip(grams, plain, strict=True))) == len(set(grams)) == len(set(plain))


def test_a_hash_table_finds_its_keys_and_nothing_else() -> None:
    keys = np.arange(1, 4000, 7, dtype=np.uint64) << np.uint64(20)  # all in one slot at first
    table = hash_table(keys)
    asked = np.concatenate([keys, keys + np.uint64(1), np.zeros(1, np.uint64)])
    assert found_in(asked, table).tolist() == [True] * len(keys) + [False] * (len(keys) + 1)
