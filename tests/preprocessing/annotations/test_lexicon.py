import gzip
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.annotations import LexiconConfig
from preprocessing.annotations import lexicon as module
from preprocessing.annotations.lexicon import Lexicon, read_entries
from preprocessing.annotations.matching import fold, folding, traits
from preprocessing.storage import InputError
from preprocessing.texts import Texts


def write(folder: Path, entries: list[str], name: str = "lexicon.tsv") -> Path:
    path = folder / name
    path.write_text("".join(f"{entry}\n" for entry in entries), encoding="utf-8")
    return path


def found(lexicon: Lexicon, *texts: str) -> list[str]:
    column = Texts.of(pa.array(texts, pa.large_string()))
    return [bytes(column.data[a:b]).decode() for a, b in lexicon.spans(column)]


@pytest.mark.parametrize(
    ("entries", "text", "expected"),
    [
        (["new york", "york times"], "the new york times", ["new york"]),
        (["art", "art deco"], "art decoration, art deco", ["art", "art deco"]),
        (["new", "new york"], "new yorker in new york", ["new", "new york"]),
        (["York"], "New York's, (York) York-shire NewYork Yorks York2", ["York"] * 3),
        (["in fact"], "in\nfact, in  fact, in fact", ["in fact"]),
        (["C++", ".22"], "C++ or C+++ 0.22, x.22", ["C++", "C++", ".22", ".22"]),
        (["北京", "北京大学", "大学生"], "在北京大学生活", ["北京大学"]),
        (["Java"], "用Java编程 JavaScript", ["Java"]),
        (["서울"], "서울에서", ["서울"]),
        (["กรุง"], "กรุงเทพ", ["กรุง"]),
        (["cafe"], "cafe\u0301 cafe", ["cafe"]),
        (["über uns"], "Sie reden über uns.", ["über uns"]),
        (["дом"], "дом домик, дом", ["дом", "дом"]),
        (["aa"], "aa aaa aa", ["aa", "aa"]),
        (["ab"], "AB Ab ab", ["ab"]),
    ],
)
def test_the_leftmost_longest_match_at_word_borders_wins(
    tmp_path: Path, entries: list[str], text: str, expected: list[str]
) -> None:
    assert found(Lexicon([LexiconConfig(path=write(tmp_path, entries))]), text) == expected


def test_spans_are_places_in_the_column(tmp_path: Path) -> None:
    lexicon = Lexicon([LexiconConfig(path=write(tmp_path, ["é b", "ab"]))])
    column = Texts.of(pa.array(["spare ab", "a é b", "", "ab", "a", "b"])[1:])
    assert lexicon.spans(column).tolist() == [[10, 14], [14, 16]]  # "a" and "b" are two texts


def test_case_is_folded_only_where_it_is_said(tmp_path: Path) -> None:
    exact = LexiconConfig(path=write(tmp_path, ["New York"], "exact"))
    folded = LexiconConfig(
        path=write(tmp_path, ["ÉCOLE normale", "Σίσυφος"], "folded"), case_sensitive=False
    )
    lexicon = Lexicon([exact, folded])
    assert lexicon.num_entries == 3
    text = "new york, New York, École Normale, école normale, ΣΊΣΥΦΟΣ"
    assert found(lexicon, text) == [
        "New York", "École Normale", "école normale", "ΣΊΣΥΦΟΣ"
    ]  # fmt: skip


def test_folding_moves_no_byte() -> None:
    characters = "".join(chr(p) for p in range(1, 0x20000) if not 0xD800 <= p < 0xE000)
    folded = bytes(fold(np.frombuffer(characters.encode(), np.uint8), folding())).decode()
    assert len(folded) == len(characters)
    for before, after in zip(characters, folded, strict=True):
        assert len(before.encode()) == len(after.encode())
        assert after in (before, before.casefold(), before.lower())
    assert folded[ord("Q") - 1] == "q"
    unchanged = "ẞİ\u212aß1漢"  # where folding would take another number of bytes
    assert all(folded[characters.index(character)] == character for character in unchanged)


def test_short_entries_and_extra_columns_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.tsv.gz"
    path.write_bytes(gzip.compress("\ufeff红楼 \t 12\nx\ty\n\n  ab cd  \tn\tv\r\nabc\n".encode()))
    assert read_entries(LexiconConfig(path=path)) == ["红楼", "ab cd", "abc"]
    assert read_entries(LexiconConfig(path=path, min_characters=3)) == ["ab cd", "abc"]
    assert read_entries(LexiconConfig(path=path, min_characters=1))[1] == "x"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"a\n\n", "not one entry of 2 characters"),
        (b"", "not one entry"),
        (b"fine\nb\xff\n", r":2: not UTF-8"),
        (None, "cannot read the lexicon"),
    ],
)
def test_a_bad_lexicon_is_refused(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    path = tmp_path / "lexicon.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        Lexicon([LexiconConfig(path=path)])


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.gz"
    path.write_bytes(gzip.compress(b"one entry\n" * 100)[:-10])
    with pytest.raises(InputError, match="cannot read the lexicon"):
        read_entries(LexiconConfig(path=path))


# -- against a search that anyone can read ---------------------------------------------------------


def may_part(text: str, place: int) -> bool:
    if place in (0, len(text)):
        return True
    before, after = (int(traits()[ord(one)]) for one in text[place - 1 : place + 1])
    return not after & 2 and not (before & 1 and after & 1)


def naive(entries: set[str], text: str) -> list[tuple[int, int]]:
    """Spans in characters."""
    spans = []
    place = 0
    while place < len(text):
        ends = [
            place + len(entry)
            for entry in entries
            if text.startswith(entry, place)
            and may_part(text, place)
            and may_part(text, place + len(entry))
        ]
        if ends:
            spans.append((place, max(ends)))
        place = max(ends, default=place + 1)
    return spans


ALPHABET = st.sampled_from("aaab .é北京京大\u0301กร")
WORDS = st.text(ALPHABET, min_size=1, max_size=5).map(str.strip).filter(bool)


@settings(deadline=None)
@given(
    st.sets(WORDS, min_size=1, max_size=12),
    st.lists(st.text(ALPHABET, max_size=40), max_size=4),
    st.sampled_from([3, 10, 2**20]),
)
def test_spans_equal_a_naive_search_whatever_the_pieces(
    tmp_path_factory: pytest.TempPathFactory, entries: set[str], texts: list[str], size: int
) -> None:
    path = write(tmp_path_factory.mktemp("lexicon"), sorted(entries))
    lexicon = Lexicon([LexiconConfig(path=path, min_characters=1)])
    expected = []
    base = 0
    for text in texts:
        for start, stop in naive(entries, text):
            expected.append([base + len(text[:place].encode()) for place in (start, stop)])
        base += len(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BYTES_AT_ONCE", size)
        assert lexicon.spans(Texts.of(pa.array(texts, pa.large_string()))).tolist() == expected


def test_wordnet_and_names_are_found_in_novels() -> None:
    if "LEXMILL_DATA" not in os.environ:
        pytest.skip("LEXMILL_DATA is not set")
    data = Path(os.environ["LEXMILL_DATA"])
    raw = (data / "en_novels" / "novels_en.txt").read_bytes()[:300_000].decode(errors="ignore")
    texts = raw.split("\n\n")
    file = LexiconConfig(path=data / "lexicon" / "en" / "wordnet_multiword.tsv")
    column = Texts.of(pa.array(texts, pa.large_string()))
    spans = Lexicon([file]).spans(column)
    assert len(spans) > 500
    assert (spans[:, 0] < spans[:, 1]).all()
    assert (spans[1:, 0] >= spans[:-1, 1]).all()
    entries = set(read_entries(file))
    assert {bytes(column.data[a:b]).decode() for a, b in spans} <= entries
    by_first: dict[str, set[str]] = {}
    for entry in entries:
        by_first.setdefault(entry[:4], set()).add(entry)
    text = texts[int(np.argmax([len(text) for text in texts]))][:20_000]
    near = set().union(*(by_first.get(text[i : i + 4], set()) for i in range(len(text))))
    present = {entry for entry in near if entry in text}
    mine = Lexicon([file]).spans(Texts.of(pa.array([text], pa.large_string())))
    assert len(mine) == len(naive(present, text)) > 10
