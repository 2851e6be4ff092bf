from pathlib import Path

import pytest
from cleaning_cases import decode, reasons

from configs.schema import ConfigError, load
from preprocessing.cleaning import CleaningConfig
from preprocessing.cleaning.settings import GopherConfig, RepetitionConfig


def decode_yaml(folder: Path, text: str) -> CleaningConfig:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path).decode("corpus", CleaningConfig)


def test_every_known_language_has_a_whole_profile_without_being_named() -> None:
    profiles = CleaningConfig().profiles
    assert list(profiles) == ["default", "en", "de", "zh", "ja", "ar"]
    assert profiles["en"].gopher == GopherConfig()
    assert profiles["en"].repetition == RepetitionConfig()
    assert profiles["en"].c4 is None
    assert profiles == decode({"profiles": {}}).profiles


def test_one_key_is_changed_and_the_others_stay(tmp_path: Path) -> None:
    config = decode_yaml(
        tmp_path, "corpus: {profiles: {de: {gopher: {min_words: 20}}, fr: {stop_words: [le, la]}}}"
    )
    known = CleaningConfig().profiles
    german = config.profiles["de"].gopher
    assert german == GopherConfig(min_words=20)
    assert config.profiles["de"].stop_words == known["de"].stop_words
    assert config.profiles["zh"] == known["zh"]
    assert config.profiles["fr"].stop_words == ("le", "la")
    assert config.profiles["fr"].gopher == GopherConfig()


def test_the_default_profile_is_below_all_others() -> None:
    config = decode(
        {
            "profiles": {
                "default": {"c4": {"min_sentences": 2}, "gopher": {"min_words": 7}},
                "en": {"c4": None},
            }
        }
    )
    assert config.profiles["en"].c4 is None
    sections = {name: profile.c4 for name, profile in config.profiles.items() if name != "en"}
    assert {c4.min_sentences for c4 in sections.values() if c4} == {2}
    words = {name: profile.gopher for name, profile in config.profiles.items()}
    # What is known of Chinese and Japanese goes before what is said of all languages.
    assert {name: gopher.min_words for name, gopher in words.items() if gopher} == {
        "default": 7,
        "en": 7,
        "de": 7,
        "zh": 80,
        "ja": 80,
        "ar": 7,
    }


def test_what_the_default_switches_off_stays_off_until_a_language_asks_for_it() -> None:
    off = {"gopher": None, "repetition": {"max_top_ngrams": [None, None, None]}}
    config = decode({"profiles": {"default": off, "zh": {"gopher": {"min_words": 5}}}})
    assert config.profiles["ja"].gopher is None
    chinese = config.profiles["zh"].gopher
    assert chinese is not None
    assert (chinese.min_words, chinese.max_words) == (5, 160_000)
    english = config.profiles["en"].repetition
    assert english is not None
    assert english.max_top_ngrams == (None, None, None)


def test_mistakes_are_named_with_their_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        decode_yaml(
            tmp_path,
            "corpus:\n  profiles:\n    de:\n      gopher: {min_wrods: 5}\n"
            "    zh: {stop_words: [1]}\n    en: {repetition: {max_top_ngrams: [0.1]}}\n",
        )
    message = str(error.value)
    assert (
        "recipe.yaml:4: corpus.profiles.de.gopher.min_wrods: unknown key; did you mean" in message
    )
    assert "corpus.profiles.zh.stop_words.0: Input should be a valid string" in message
    assert "corpus.profiles.en.repetition.max_top_ngrams" in message
    for text in ("corpus: {profiles: 5}", "corpus: {profiles: {de: null}}"):
        with pytest.raises(ConfigError, match=r"corpus\.profiles"):
            decode_yaml(tmp_path, text)


def test_a_document_gets_the_profile_closest_to_its_language() -> None:
    config = decode(
        {
            "profiles": {
                "default": {"gopher": {"min_words": 4}, "repetition": None},
                "pt": {"gopher": {"min_words": 3}},
                "pt-BR": {"gopher": {"min_words": 2}},
            }
        }
    )
    for language, enough in (("pt-BR", 2), ("pt-PT", 3), ("PT_br", 2), ("fr", 4), ("ptx", 4)):
        texts = [" ".join(["words"] * count) for count in (1, 2, 3, 4)]
        found = reasons(config, texts, language)
        assert found == ["gopher_word_count"] * (enough - 1) + [""] * (5 - enough), language


def test_all_thresholds_of_one_language_leave_the_others_alone() -> None:
    config = decode({"profiles": {"en": {"gopher": None}}, "personal_data": None})
    assert reasons(config, ["short"], "en") == [""]
    assert reasons(config, ["kurz"], "de") == ["gopher_word_count"]
