import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.annotations import JiebaConfig
from preprocessing.annotations.segmentation import Jieba
from preprocessing.storage import InputError
from preprocessing.texts import Texts

DICTIONARY = "我们 100 r\n来到 80 v\n北京 90 ns\n清华 50 nz\n清华大学 60 nt\n大学 70 n\n"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Jieba:
    path = tmp_path_factory.mktemp("jieba") / "words.txt"
    path.write_text(DICTIONARY, encoding="utf-8")
    return Jieba(JiebaConfig(kind="jieba", hmm=False, dictionary=path))


def words(jieba: Jieba, *texts: str) -> list[str]:
    column = Texts.of(pa.array(texts, pa.large_string()))
    places, begins = jieba.words(column)
    ends = [*places.tolist(), -1]
    found: list[str] = []
    for index, (place, starts) in enumerate(zip(places.tolist(), begins.tolist(), strict=True)):
        width = 4 if column.data[place] >= 0xF0 else 3
        character = bytes(column.data[place : place + width]).decode()
        if starts:
            found.append(character)
        else:
            assert ends[index - 1] < place
            found[-1] += character
    return found


def test_words_of_the_dictionary_begin_at_their_places(small: Jieba) -> None:
    column = Texts.of(pa.array(["x", "a我们，来到北京", "清华大学"])[1:])
    places, begins = small.words(column)
    assert places.tolist() == [2, 5, 11, 14, 17, 20, 23, 26, 29, 32]
    assert begins.tolist() == [True, False] * 3 + [True, False, False, False]


def test_stretches_are_segmented_each_by_itself(small: Jieba) -> None:
    assert words(small, "我们来到北京清华大学") == ["我们", "来到", "北京", "清华大学"]
    assert words(small, "清华", "大学") == ["清华", "大学"]
    assert words(small, "清华 大学x北、京") == ["清华", "大学", "北", "京"]
    assert words(small, "ひらがなと latin 12") == []
    assert words(small, "", "𠀀我们〇") == ["𠀀", "我们", "〇"]
    assert words(small) == []


def test_the_hidden_markov_model_guesses_words_that_the_dictionary_lacks() -> None:
    text = "他来到了网易杭研大厦"
    assert words(Jieba(JiebaConfig(kind="jieba")), text) == [
        "他",
        "来到",
        "了",
        "网易",
        "杭研",
        "大厦",
    ]
    plain = words(Jieba(JiebaConfig(kind="jieba", hmm=False)), text)
    assert plain == ["他", "来到", "了", "网易", "杭", "研", "大厦"]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.text(st.sampled_from("我们来到北京清华大学龘𠀀々 ,aé"), max_size=30), max_size=3)
)
def test_the_words_are_those_of_each_stretch(small: Jieba, texts: list[str]) -> None:
    joined = "".join(words(small, *texts))
    assert joined == "".join(c for text in texts for c in text if c not in " ,aé")
    assert words(small, *texts) == [word for text in texts for word in words(small, text)]


def test_nothing_is_written_to_the_shared_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert words(Jieba(JiebaConfig(kind="jieba")), "我们来到北京") == ["我们", "来到", "北京"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, "我们\n", "我们 many\n"])
def test_a_bad_dictionary_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"words\.txt: cannot read jieba's dictionary"):
        Jieba(JiebaConfig(kind="jieba", dictionary=path))


def test_real_text_keeps_every_character() -> None:
    if "LEXMILL_DATA" not in os.environ:
        pytest.skip("LEXMILL_DATA is not set")
    paths = sorted((Path(os.environ["LEXMILL_DATA"]) / "zh_novels").glob("*.txt"))
    text = max((path.read_bytes() for path in paths), key=len)[:100_000].decode(errors="ignore")
    found = words(Jieba(JiebaConfig(kind="jieba")), text)
    assert sum(map(len, found)) > 20_000
    assert 1.2 < sum(map(len, found)) / len(found) < 2.0  # characters a word
