"""What a configuration says about annotations; light to import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pydantic

from configs.schema import config, setting
from preprocessing.places import to_place


def _place(value: object) -> Path:
    return value if isinstance(value, Path) else to_place(value)


File = Annotated[Path, pydantic.PlainValidator(_place)]
"""A path of this machine, or the URL of an object store (``s3://bucket/words.tsv``)."""


@config
class LexiconConfig:
    """A file with one entry a line; columns after a tab are not read.

    Attributes:
        path: UTF-8, ``.gz`` too.
        case_sensitive: whether ``new york`` is no match for the entry ``New York``.
        min_characters: shorter entries are left out.
    """

    path: File
    case_sensitive: bool = True
    min_characters: Annotated[int, pydantic.Field(ge=1)] = 2


@config
class JiebaConfig:
    """Chinese words by jieba; only stretches of Han characters are segmented.

    Attributes:
        hmm: guess words that the dictionary lacks, by jieba's hidden Markov model.
        dictionary: ``word frequency [tag]`` a line, in place of jieba's own.
    """

    kind: Literal["jieba"]
    hmm: bool = True
    dictionary: File | None = None


@config
class AnnotationsConfig:
    """Layers that tokenize writes beside the ids; a layer that is not named is not written.

    Attributes:
        phrases: lexicons of phrases, matched as one: the leftmost longest match wins.
        entities: lexicons of named entities, likewise.
        segmenter: decides where words begin in Chinese text, for whole-word masking.
        capitals: which tokens are parts of capitalised words, for vocabularies without case.
    """

    phrases: tuple[LexiconConfig, ...] = ()
    entities: tuple[LexiconConfig, ...] = ()
    segmenter: JiebaConfig | None = None
    capitals: bool = setting(default=False, added=True)
