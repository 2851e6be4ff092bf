"""Which language a document is in, by ``py3langid`` (Lui and Baldwin 2012), which has its model.

It knows 140 codes, needs no network, and reads a sample: its time grows with the bytes, and what it
says of a thousand characters it also says of all. Individual languages count for their
macrolanguage (ISO 639-3), since what is written differs little: Egyptian Arabic is ``ar``.
"""

from __future__ import annotations

import importlib
from typing import Any

from preprocessing.storage import InputError

SAMPLE_CHARACTERS = 1000
_MACROLANGUAGES = {
    "ary": "ar",
    "arz": "ar",
    "fuv": "ff",
    "gug": "gn",
    "ltg": "lv",
    "sdh": "ku",
    "uzs": "uz",
    "wuu": "zh",
    "yue": "zh",
}


class LanguageIdentifier:
    """Names the language of a text.

    Raises:
        InputError: the library is missing.
    """

    def __init__(self) -> None:
        try:
            langid: Any = importlib.import_module("py3langid.langid")
        except ImportError:
            raise InputError(
                "corpus.clean.identify_language needs py3langid: pip install lexmill[clean]"
            ) from None
        self._model: Any = langid.LanguageIdentifier.from_model_file(
            langid.MODEL_FILE, norm_probs=True
        )

    def identify(self, text: str) -> tuple[str, float]:
        """The ISO 639 code of the likeliest language and its probability."""
        likely: dict[str, float] = {}
        for code, probability in self._model.rank(sample(text)):
            language = _MACROLANGUAGES.get(code, code)
            likely[language] = likely.get(language, 0.0) + probability
        return max(likely.items(), key=lambda entry: (entry[1], entry[0]))


def sample(text: str) -> str:
    """The beginning and, of long texts, as much from the middle: front matter may mislead."""
    middle, half = len(text) // 2, SAMPLE_CHARACTERS // 2
    if len(text) <= SAMPLE_CHARACTERS:
        return text
    return text[:half] + "\n" + text[middle : middle + half]


def same_language(given: str | None, wanted: str) -> bool:
    """Whether a language code is the wanted one or a variety of it (``zh-TW`` of ``zh``)."""
    if given is None:
        return False
    given, wanted = given.lower().replace("_", "-"), wanted.lower()
    return given == wanted or given.startswith(wanted + "-")
