"""The texts of evaluation sets, read as raw files of the corpus are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

from preprocessing.cleaning.settings import DecontaminationConfig, EvaluationSetConfig
from preprocessing.reading.base import Documents, Reject
from preprocessing.reading.listing import list_sources
from preprocessing.reading.readers import read
from preprocessing.reading.settings import FIELD_FORMS, ReadingConfig
from preprocessing.reading.sources import Slice, digest_slices, short_names, shown
from preprocessing.storage import InputError


def evaluation_texts(config: EvaluationSetConfig) -> Iterator[str]:
    """The texts of a set, field by field.

    Raises:
        InputError: a file or record that cannot be read, since the corpus may hold it all the same.
    """
    fields = config.text_fields if config.form in FIELD_FORMS else ("text",)
    for piece in _whole_files(config):
        for field in fields:
            for found in read(piece, ReadingConfig(form=config.form, text_field=field)):
                if isinstance(found, Documents):
                    yield from cast(list[str], found.texts.to_pylist())
                elif isinstance(found, Reject) and found.reason != "empty_text":
                    raise InputError(
                        f"{shown(piece.source.url)}: at {found.offset}: {found.detail} "
                        f"({found.reason}); an evaluation set must be readable as a whole"
                    )


def evaluation_digests(config: DecontaminationConfig) -> Mapping[str, str]:
    """Digests of the files of all sets."""
    digests = {}
    for name, own in sorted(config.sets.items()):
        pieces = _whole_files(own)
        names = short_names([piece.source for piece in pieces])
        for piece in pieces:
            digests[f"evaluation/{name}/{names[piece.source.url]}"] = digest_slices([piece])
    return digests


def _whole_files(config: EvaluationSetConfig) -> list[Slice]:
    sources = list_sources(config.inputs).sources
    return [Slice(source, 0, source.size) for source in sources]
