"""What cleaning knows of some languages, as the configuration of a profile would say it.

Thresholds that follow no paper say so. The papers are about English; for other languages the
words, marks and stop words are the language's own and the thresholds the papers', but where the
script makes them meaningless.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULT = "default"

# Chinese and Japanese, where every character counts as a word: one of their words has some 1.6 of
# them, so that the bounds on words and the lengths of n-grams grow alike (8 characters for 5
# words), and the length of words says nothing.
_CHARACTERS: Mapping[str, Any] = {
    "min_words": 80,
    "max_words": 160_000,
    "min_mean_word_length": None,
    "max_mean_word_length": None,
}
_REPEATED_CHARACTERS: Mapping[str, Any] = {
    "max_top_ngrams": (None, None, 0.20),
    "max_duplicate_ngrams": (None, None, None, 0.15, None, 0.14),
}

BUILT_IN: Mapping[str, Mapping[str, Any]] = {
    DEFAULT: {
        "terminal_punctuation": ".!?\"'”’»›…。！？」』؟۔।॥։።។။",
        "stop_words": (),
    },
    "en": {
        "terminal_punctuation": ".!?\"'”’",
        # Rae et al. 2021, appendix A.1.1.
        "stop_words": ("the", "be", "to", "of", "and", "that", "have", "with"),
        # Raffel et al. 2020, section 2.2.
        "policies": (
            "terms of use",
            "privacy policy",
            "cookie policy",
            "uses cookies",
            "use of cookies",
            "use cookies",
        ),
        "phone_regions": ("US", "GB"),
    },
    "de": {
        "terminal_punctuation": ".!?\"'“”‘’«»‹›",
        "stop_words": ("der", "die", "und", "das", "in", "zu", "ist", "nicht", "mit", "von"),
        "policies": (
            "nutzungsbedingungen",
            "datenschutzerklärung",
            "cookie-richtlinie",
            "verwendet cookies",
            "verwendung von cookies",
            "verwenden cookies",
        ),
        "phone_regions": ("DE", "AT", "CH"),
    },
    "zh": {
        "terminal_punctuation": '。！？…”’」』.!?"',
        "stop_words": ("的", "了", "是", "不", "在", "有", "人", "我", "他", "一", "之", "也"),
        "gopher": _CHARACTERS,
        "repetition": _REPEATED_CHARACTERS,
        "policies": ("使用条款", "隐私政策", "cookie政策", "使用cookie"),
        "phone_regions": ("CN",),
    },
    "ja": {
        "terminal_punctuation": '。！？…」』）.!?"',
        "stop_words": ("の", "に", "は", "を", "た", "が", "で", "と", "て", "も"),
        "gopher": _CHARACTERS,
        "repetition": _REPEATED_CHARACTERS,
        "policies": ("利用規約", "プライバシーポリシー", "クッキーポリシー", "クッキーを使用"),
        "phone_regions": ("JP",),
    },
    "ar": {
        "terminal_punctuation": '.!?؟۔…"”»',
        "stop_words": ("في", "من", "على", "إلى", "أن", "ما", "لا", "عن", "هذا", "التي"),
        "policies": ("شروط الاستخدام", "سياسة الخصوصية", "ملفات تعريف الارتباط"),
    },
}
"""Language -> the keys in which its profile differs; the other keys are the papers'."""


def layered(given: Any) -> Any:
    """Put under what a user gives for each language what is known of it.

    Args:
        given: ``{language: {key: value}}`` as the configuration has it; what has another form is
            left for the decoder to complain of.
    """
    if not (isinstance(given, dict) and all(isinstance(own, dict) for own in given.values())):
        return given
    base = _over(BUILT_IN[DEFAULT], given.get(DEFAULT, {}))
    profiles = {DEFAULT: base}
    for language in [*BUILT_IN, *given]:
        if language != DEFAULT:
            known = BUILT_IN.get(language, {})
            own = given.get(language, {})
            below = _over(base, known, revive=False)
            # A section that ``default`` switches off comes back as the language has it.
            revived = {key: known.get(key, {}) for key in own if below.get(key, ()) is None}
            profiles[language] = _over(below | revived, own)
    return profiles


def _over(below: Any, above: Any, *, revive: bool = True) -> Any:
    """``above`` where it says something, else ``below``; what is off may stay so."""
    if below is None and not revive:
        return None
    if not isinstance(above, Mapping):
        return tuple(above) if isinstance(above, list) else above
    below = below if isinstance(below, Mapping) else {}
    return {
        key: _over(below.get(key, {}), above[key], revive=revive) if key in above else below[key]
        for key in dict.fromkeys([*below, *above])
    }
