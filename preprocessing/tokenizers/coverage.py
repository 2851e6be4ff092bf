"""How well a vocabulary fits the documents, language by language.

Fertility is tokens a word (Rust et al., 2021, section 4.1), words being what white space parts; for
languages written without it, tokens a character say more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from preprocessing.tokenizers.models import AnyModel
from preprocessing.tokenizers.sampling import TrainingTexts, languages

MAX_BYTES = 4 << 20
"""Of text that a vocabulary is tried on."""
MAX_DOCUMENT_CHARACTERS = 1 << 16
"""Of a document, from its beginning."""


@dataclass
class Fit:
    """Counts of one language.

    Attributes:
        characters: by character, white space left out.
    """

    documents: int = 0
    words: int = 0
    tokens: int = 0
    unknown: int = 0
    characters: Counter[str] = field(default_factory=Counter)


def coverage(
    model: AnyModel, unknown: int | None, texts: TrainingTexts
) -> dict[str, Mapping[str, Any]]:
    """Try a vocabulary on sampled documents, each of them once.

    Returns:
        By language: ``documents``, ``words``, ``characters`` (white space left out) and
        ``distinct_characters`` tried; ``tokens_per_word``, ``tokens_per_character``;
        ``unknown_share`` of the tokens; ``characters_covered``, the share of the characters that
        have a piece by themselves (1 where nothing is unknown).
    """
    fits: dict[str, Fit] = {}
    for batch, counts in texts.batches():
        chosen = counts > 0
        own = [text[:MAX_DOCUMENT_CHARACTERS] for text in batch.filter(chosen)["text"].to_pylist()]
        spoken = languages(batch).filter(chosen).to_pylist()
        for language, text, ids in zip(spoken, own, model.encode(own), strict=True):
            fit = fits.setdefault(language, Fit())
            words = text.split()
            fit.documents += 1
            fit.words += len(words)
            fit.tokens += len(ids)
            fit.unknown += ids.count(unknown) if unknown is not None else 0
            fit.characters.update("".join(words))
    return {language: _describe(fits[language], model, unknown) for language in sorted(fits)}


def _describe(fit: Fit, model: AnyModel, unknown: int | None) -> Mapping[str, Any]:
    distinct = sorted(fit.characters)
    known = sum(
        fit.characters[character]
        for character, ids in zip(distinct, model.encode(distinct), strict=True)
        if unknown is None or unknown not in ids
    )
    total = fit.characters.total()
    return {
        "documents": fit.documents,
        "words": fit.words,
        "characters": total,
        "distinct_characters": len(distinct),
        "tokens_per_word": _ratio(fit.tokens, fit.words),
        "tokens_per_character": _ratio(fit.tokens, total),
        "unknown_share": _ratio(fit.unknown, fit.tokens),
        "characters_covered": _ratio(known, total),
    }


def _ratio(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0
