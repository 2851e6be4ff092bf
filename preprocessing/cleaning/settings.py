"""What cleaning does, as a configuration says it.

    clean:
      identify_language: true
      languages: [en, de]
      profiles:
        default: {c4: {}}                     # C4's heuristics, too, with the paper's thresholds
        de: {gopher: {min_words: 20}}         # one key changed, the others stay
        zh: {repetition: null}                # switched off
      personal_data: {phone: null}            # masked, but for telephone numbers
      decontaminate:
        sets:
          squad: {inputs: [squad/dev.jsonl], form: jsonl, text_fields: [question, context]}

A language's profile is put together key by key from four layers, the later one winning: what the
classes below say, ``profiles.default``, what :mod:`preprocessing.cleaning.profiles` knows of the
language, ``profiles.<language>``. A threshold of ``null`` is switched off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import pydantic

from configs.schema import config, setting
from preprocessing.cleaning.profiles import layered

Share = Annotated[float, pydantic.Field(ge=0.0, le=1.0)]
Count = Annotated[int, pydantic.Field(ge=1)]
Length = Annotated[float, pydantic.Field(gt=0.0)]
Language = Annotated[str, pydantic.Field(pattern=r"^([a-z]{2,3}(-[A-Za-z0-9]+)*|default)$")]


@config
class C4Config:
    """C4's heuristics (Raffel et al. 2020, JMLR 21:140, section 2.2).

    Attributes:
        terminal_punctuation: keep only lines that end in a terminal mark of the profile.
        min_line_words: keep only lines of at least so many words.
        min_sentences: of a document, after lines were dropped. The journal's figures are 5
            sentences and 3 words a line; a later version of the preprint, as the published code,
            has 3 sentences and 5 words.
        javascript: drop lines with the word "javascript".
        policies: drop lines with one of the profile's notices about terms and cookies.
        citation_marks: remove "[1]", "[edit]" and "[citation needed]".
        lorem_ipsum: drop documents with this filler.
        curly_brackets: drop documents with a "{".
        bad_words: a file of words and phrases, one a line; documents with one of them are dropped.
    """

    terminal_punctuation: bool = True
    min_line_words: Count | None = 3
    min_sentences: Count | None = 5
    javascript: bool = True
    policies: bool = True
    citation_marks: bool = True
    lorem_ipsum: bool = True
    curly_brackets: bool = True
    bad_words: Path | None = None


@config
class GopherConfig:
    """Gopher's quality filters (Rae et al. 2021, arXiv:2112.11446, appendix A.1.1).

    Attributes:
        min_words: of a document.
        max_words: of a document.
        min_mean_word_length: in characters.
        max_mean_word_length: in characters.
        max_symbol_ratio: hash signs over words, and likewise ellipses over words.
        max_bullet_lines: share of the lines that start with a bullet.
        max_ellipsis_lines: share of the lines that end in an ellipsis.
        min_alphabetic_words: share of the words that hold a letter.
        min_stop_words: different ones of the profile's stop words, where it has any.
    """

    min_words: Count | None = 50
    max_words: Count | None = 100_000
    min_mean_word_length: Length | None = 3.0
    max_mean_word_length: Length | None = 10.0
    max_symbol_ratio: Length | None = 0.1
    max_bullet_lines: Share | None = 0.9
    max_ellipsis_lines: Share | None = 0.3
    min_alphabetic_words: Share | None = 0.8
    min_stop_words: Count | None = 2


@config
class RepetitionConfig:
    """Gopher's repetition filters (Rae et al. 2021, appendix A.1.1, table A1): largest shares.

    Attributes:
        max_duplicate_lines: of the lines.
        max_duplicate_paragraphs: of the paragraphs.
        max_duplicate_line_characters: of the characters, in duplicate lines.
        max_duplicate_paragraph_characters: of the characters, in duplicate paragraphs.
        max_top_ngrams: of the characters, in the most frequent 2-, 3- and 4-gram.
        max_duplicate_ngrams: of the characters, in duplicate 5- to 10-grams.
    """

    max_duplicate_lines: Share | None = 0.30
    max_duplicate_paragraphs: Share | None = 0.30
    max_duplicate_line_characters: Share | None = 0.20
    max_duplicate_paragraph_characters: Share | None = 0.20
    max_top_ngrams: Annotated[
        tuple[Share | None, ...], pydantic.Field(min_length=3, max_length=3)
    ] = (0.20, 0.18, 0.16)
    max_duplicate_ngrams: Annotated[
        tuple[Share | None, ...], pydantic.Field(min_length=6, max_length=6)
    ] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.10)


@config
class ProfileConfig:
    """The filters of one language, and what they need to know of it.

    Attributes:
        terminal_punctuation: characters that a sentence may end in.
        stop_words: frequent words that running text holds, in lower case.
        policies: parts of the lines that C4's policy filter drops, in lower case.
        phone_regions: countries (ISO 3166) whose numbers are known without a country code.
        c4: C4's heuristics. Off unless asked for: they presuppose a paragraph a line.
        gopher: Gopher's quality filters.
        repetition: Gopher's repetition filters.
    """

    terminal_punctuation: str
    stop_words: tuple[str, ...]
    policies: tuple[str, ...] = ()
    phone_regions: tuple[Annotated[str, pydantic.Field(pattern=r"^[A-Z]{2}$")], ...] = ()
    c4: C4Config | None = None
    gopher: GopherConfig | None = GopherConfig()
    repetition: RepetitionConfig | None = RepetitionConfig()


PROFILES: pydantic.TypeAdapter[dict[str, ProfileConfig]] = pydantic.TypeAdapter(
    dict[Language, ProfileConfig]
)
BUILT_IN_PROFILES = PROFILES.validate_json(json.dumps(layered({})))


@config
class PersonalDataConfig:
    """What is put in the place of personal data; null leaves a kind as it is.

    Attributes:
        email: e-mail addresses.
        phone: telephone numbers that exist in their country's plan.
        ip_address: public addresses, of version 4 and 6.
        iban: bank accounts with right check digits.
        card: payment cards with a known issuer and a right check digit.
    """

    email: str | None = "<email>"
    phone: str | None = "<phone>"
    ip_address: str | None = "<ip>"
    iban: str | None = "<iban>"
    card: str | None = "<card>"


@config
class EvaluationSetConfig:
    """The files of an evaluation set, every text of which must not be trained on.

    Attributes:
        inputs: files or patterns.
        form: how they are read, as the corpus's own.
        text_fields: keys or columns that hold texts, each one by itself, in forms that have any.
    """

    inputs: Annotated[tuple[str, ...], pydantic.Field(min_length=1)]
    form: Literal["text", "lines", "file", "jsonl", "json", "csv", "tsv", "parquet", "arrow"] = (
        "jsonl"
    )
    text_fields: Annotated[tuple[str, ...], pydantic.Field(min_length=1)] = ("text",)


@config
class DecontaminationConfig:
    """Documents that share n-grams with evaluation sets (Brown et al. 2020, appendix C).

    Attributes:
        sets: evaluation sets by name.
        ngram: words in a row that a document must share; lower case, without punctuation.
        min_words: examples shorter than ``ngram`` count where a document holds them whole and they
            have at least so many words; still shorter ones where the document is nothing else.
    """

    sets: Annotated[
        Mapping[
            Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")],
            EvaluationSetConfig,
        ],
        pydantic.Field(min_length=1),
    ]
    ngram: Annotated[int, pydantic.Field(ge=2, le=64)] = 13
    min_words: Count = 8


@config
class CleaningConfig:
    """Repairs and filters, in this order; each can be switched off by itself.

    Attributes:
        html_entities: resolve ``&amp;`` and its like, once.
        control_characters: remove controls and other characters without a meaning in plain text.
        unicode: normalisation form.
        white_space: one space between words, no blanks around lines, at most one blank line.
        identify_language: of documents that say none; the ``language`` column then says it.
        languages: documents of other languages, and of none, are dropped; empty keeps all.
        min_confidence: below it, a document's language stays unknown.
        profiles: by language code; ``default`` is for all others.
        decontaminate: evaluation sets to keep apart from.
        personal_data: what is masked, last of all.
    """

    html_entities: bool = True
    control_characters: bool = True
    unicode: Literal["nfc", "nfkc", "none"] = "nfc"
    white_space: bool = True
    identify_language: bool = False
    languages: tuple[Language, ...] = ()
    min_confidence: Share = 0.5
    profiles: Annotated[Mapping[Language, ProfileConfig], pydantic.BeforeValidator(layered)] = (
        setting(BUILT_IN_PROFILES)
    )
    decontaminate: DecontaminationConfig | None = None
    personal_data: PersonalDataConfig | None = PersonalDataConfig()
