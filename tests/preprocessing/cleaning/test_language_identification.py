import json
import os
from pathlib import Path
from typing import Any

import pytest
from cleaning_cases import batch, only

from preprocessing.cleaning.cleaner import Cleaner
from preprocessing.cleaning.languages import LanguageIdentifier, same_language, sample
from preprocessing.storage import InputError

TEXTS = {
    "en": "The committee met on Tuesday and could not agree on anything that mattered.",
    "de": "Der Ausschuss tagte am Dienstag und konnte sich auf nichts einigen.",
    "zh": "委员会星期二开会，但是没有就任何重要的问题达成一致意见。",
    "ja": "委員会は火曜日に開かれましたが、重要なことは何も決まりませんでした。",
    "ar": "اجتمعت اللجنة يوم الثلاثاء ولم تتفق على أي شيء مهم في هذا الموضوع.",
}


@pytest.fixture(scope="module")
def identifier() -> LanguageIdentifier:
    return LanguageIdentifier()


def languages(texts: list[str], given: list[str | None] | None = None, **steps: Any) -> list[Any]:
    kept, _ = Cleaner(only(identify_language=True, **steps)).clean(batch(texts, given))
    return list(
        zip(kept.column("offset").to_pylist(), kept.column("language").to_pylist(), strict=True)
    )


def test_languages_are_identified_and_written() -> None:
    assert languages(list(TEXTS.values())) == list(enumerate(TEXTS))


def test_a_language_that_is_given_is_believed() -> None:
    assert languages([TEXTS["en"], TEXTS["de"]], ["fr", None]) == [(0, "fr"), (1, "de")]


def test_what_is_not_sure_enough_stays_unknown() -> None:
    assert languages(["12345", TEXTS["en"]]) == [(0, None), (1, "en")]
    assert languages([TEXTS["en"]], min_confidence=1.0) == [(0, None)]


def test_only_the_wanted_languages_are_kept() -> None:
    cleaner = Cleaner(only(identify_language=True, languages=["de", "zh"]))
    given = [None, None, None, "zh-TW", "en", None]
    texts = [TEXTS["en"], TEXTS["de"], TEXTS["zh"], "x", "y", "1"]
    kept, rejected = cleaner.clean(batch(texts, given))
    assert kept.column("offset").to_pylist() == [1, 2, 3]
    found = [(row.offset, row.reason, row.detail) for row in rejected]
    assert found == [(0, "language", "is en"), (4, "language", "is en"), (5, "language", "is und")]
    assert cleaner.tables["documents by language"] == {"de": 1, "zh": 1, "zh-TW": 1}


def test_without_identification_an_unknown_language_is_none_of_the_wanted() -> None:
    _, rejected = Cleaner(only(languages=["en"])).clean(batch([TEXTS["en"]]))
    assert [row.reason for row in rejected] == ["language"]


def test_varieties_count_for_their_language(identifier: LanguageIdentifier) -> None:
    class Model:
        def rank(self, text: str) -> list[tuple[str, float]]:
            return [("en", 0.4), ("wuu", 0.3), ("zh", 0.2), ("yue", 0.1)]

    other = object.__new__(LanguageIdentifier)
    other._model = Model()
    language, probability = other.identify("x")
    assert language == "zh"
    assert probability == pytest.approx(0.6)
    assert identifier.identify(TEXTS["en"])[0] == "en"


def test_long_texts_are_judged_by_a_sample() -> None:
    text = "a" * 5000 + "b" * 5000
    assert sample(text) == "a" * 500 + "\n" + "b" * 500
    assert sample("short") == "short"


def test_language_codes() -> None:
    assert same_language("zh-TW", "zh")
    assert same_language("pt_BR", "pt-br")
    assert not same_language("zh", "zh-TW")
    assert not same_language("den", "de")
    assert not same_language(None, "de")


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "py3langid.langid", None)
    with pytest.raises(InputError, match=r"py3langid.*lexmill\[clean\]"):
        LanguageIdentifier()


def real_texts(language: str) -> list[str]:
    data = Path(os.environ["LEXMILL_DATA"])
    if language == "ja":
        return (data / "ja_aozora" / "aozora_ja.txt").read_text(encoding="utf-8").split("\n\n")[:50]
    whole = json.loads((data / "xquad" / f"xquad.{language}.json").read_text(encoding="utf-8"))
    return [p["context"] for article in whole["data"] for p in article["paragraphs"]][:150]


@pytest.mark.parametrize("language", list(TEXTS))
def test_language_of_real_text(language: str, identifier: LanguageIdentifier) -> None:
    if "LEXMILL_DATA" not in os.environ:
        pytest.skip("LEXMILL_DATA is not set")
    texts = [text for text in real_texts(language) if text.strip()]
    found = [identifier.identify(text) for text in texts]
    right = sum(code == language and probability >= 0.5 for code, probability in found)
    assert right >= 0.97 * len(texts)  # measured: all of them, in each language
