import os
from pathlib import Path

import pytest
from cleaning_cases import batch, decode, only
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.cleaning.cleaner import Cleaner, versions
from preprocessing.cleaning.personal import PersonalData
from preprocessing.cleaning.settings import CleaningConfig, PersonalDataConfig
from preprocessing.storage import InputError

REGIONS = {
    language: profile.phone_regions for language, profile in CleaningConfig().profiles.items()
}


def mask(text: str, language: str = "en") -> str:
    return PersonalData(PersonalDataConfig()).mask(text, REGIONS[language])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ask jane.doe+x@mail.example.co.uk, or bob@b.org.", "Ask <email>, or <email>."),
        ("<jörg@bücher.de> 邮箱abc_1@example.com请联系", "<<email>> 邮箱<email>请联系"),
        ("a@b, @user, foo@localhost, x@y.1, me @ home.com", None),
        ("at 93.184.216.34, 192.168.1.77:80", "at <ip>, <ip>:80"),
        ("IP address 8.8.8.8 and server 10.0.0.1", "IP address <ip> and server <ip>"),
        ("version 1.2.3.4, section 3.1.2.4, 300.1.1.1, 127.0.0.1, 1.2.3, 1.20.33.44.55", None),
        ("from 2001:4860:4860::8888 on, fe80::1.", "from <ip> on, <ip>."),
        ("at 12:30:45 std::vector a::b ab:cd:ef:01:23:45 ::1", None),
        (
            "IBAN DE89 3704 0044 0532 0130 00 BITTE; GB82 WEST 1234 5698 7654 32.",
            "IBAN <iban> BITTE; <iban>.",
        ),
        ("DE89370400440532013000, FR1420041010050500013M02606", "<iban>, <iban>"),
        ("DE89 3704 0044 0532 0130 01 AB12 CDEF 1234 5678", None),  # wrong check digits
        ("4111 1111 1111 1111, 5500-0000-0000-0004.", "<card>, <card>."),
        ("4111111111111111; amex 3782 822463 10005", "<card>; amex <card>"),
        ("4111111111111112 490154203237518 41 11 11 11 11 11 11 11", None),
    ],
)
def test_masks_and_what_only_looks_alike(text: str, expected: str | None) -> None:
    assert mask(text, "default") == (text if expected is None else expected)


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("default", "+49 30 901820, +442079460958", "<phone>, <phone>"),
        ("default", "+1 (202) 555-0143 or +86 10 6552 9988", "<phone> or <phone>"),
        ("default", "030 901820, (202) 555-0143, +999 123 4567", None),  # of no known country
        ("de", "030 901820, 030/901820, 0171 1234567", "<phone>, <phone>, <phone>"),
        ("de", "01711234567 oder 0049 30 901820", "<phone> oder <phone>"),
        ("de", "am 12.10.2012, 01.02.2003 14:30, 2012-10-12, 1914-1918, 10 000 000", None),
        ("de", "ISBN 978-3-16-148410-0, 3-16-148410-X, 12.345.678,90 Euro", None),
        ("en", "(202) 555-0143, 202-555-0143, 1-800-555-0199", "<phone>, <phone>, <phone>"),
        ("en", "020 7946 0958", "<phone>"),
        ("en", "1914 - 1918, 1 234 567 890, 1,234,567.89, 1234567890, 2025550143", None),
        ("en", "pp. 123-456, 2012-10-12 10:30, 3.14159265358979, 6.02214076e23", None),
        ("en", "10.1000/182, order 123456789012, 00123-4567-890", None),
        ("zh", "电话13812345678，或010-65529988。", "电话<phone>，或<phone>。"),
        ("zh", "编号20120112001，人口1300000000，2008年8月8日，1949-10-01", None),
        ("ja", "090-1234-5678、03-3581-4111まで", "<phone>、<phone>まで"),
        ("ja", "昭和20年8月15日、〒100-8914、1945-1952", None),
        ("ar", "اتصل على +971 4 331 8888 أو", "اتصل على <phone> أو"),
    ],
)
def test_telephone_numbers(language: str, text: str, expected: str | None) -> None:
    assert mask(text, language) == (text if expected is None else expected)


def test_each_kind_has_its_placeholder_and_its_switch() -> None:
    text = "a@b.org 93.184.216.34 +49 30 901820 4111111111111111 DE89370400440532013000"
    config = PersonalDataConfig(email=None, phone="[TEL]", ip_address="\\1", card="", iban="{}")
    assert PersonalData(config).mask(text) == "a@b.org \\1 [TEL]  {}"


def test_masks_are_counted_and_regions_follow_the_profile() -> None:
    cleaner = Cleaner(only(personal_data={}))
    texts = ["a@b.org, c@d.org", "030 901820", "030 901820", "none"]
    kept, _ = cleaner.clean(batch(texts, ["en", "de", "en", None]))
    assert kept.column("text").to_pylist() == ["<email>, <email>", "<phone>", "030 901820", "none"]
    assert cleaner.tables["documents repaired"] == {"email": 1, "phone": 1}
    assert cleaner.tables["repairs"] == {"email": 2, "phone": 1}


PIECES = st.sampled_from(
    [
        *("a@b.org", "+49 30 901820", "93.184.216.34", "4111 1111 1111 1111", "1914-1918"),
        *("DE89 3704 0044 0532 0130 00", "fe80::1", "0171 1234567", "12.10.2012", "中文"),
        *(" ", ", ", "x", "1", ".", "-", "+", "(", ")", "\n", ":", "@"),
    ]
)


@given(st.lists(PIECES, max_size=12).map(" ".join))
@settings(deadline=None, max_examples=150)
def test_masked_texts_stay_as_they_are(text: str) -> None:
    once = mask(text, "de")
    assert mask(once, "de") == once


@given(st.lists(st.lists(PIECES, max_size=8).map("".join), max_size=4))
@settings(deadline=None, max_examples=100)
def test_a_column_is_masked_as_its_texts_are(texts: list[str]) -> None:
    personal = PersonalData(PersonalDataConfig())
    column = personal.apply(batch(texts).column("text"), [("DE",)] * len(texts))
    assert column.to_pylist() == [personal.mask(text, ("DE",)) for text in texts]


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("en_novels/novels_en.txt", "en"),
        ("de_novels/novels_de.txt", "de"),
        ("ja_aozora/aozora_ja.txt", "ja"),
        ("zh_novels/红楼梦.txt", "zh"),
    ],
)
def test_novels_hold_no_personal_data(name: str, language: str) -> None:
    if "LEXMILL_DATA" not in os.environ:
        pytest.skip("LEXMILL_DATA is not set")
    text = (Path(os.environ["LEXMILL_DATA"]) / name).read_text(encoding="utf-8")[:3_000_000]
    assert mask(text, language) == text


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "phonenumbers", None)
    with pytest.raises(InputError, match=r"phonenumbers.*lexmill\[clean\]"):
        PersonalData(PersonalDataConfig())


def test_the_libraries_that_decide_are_recorded() -> None:
    assert set(versions(decode({}))) == {"phonenumbers", "python-stdnum", "unicode"}
    assert set(versions(only(identify_language=True))) == {"py3langid", "unicode"}
