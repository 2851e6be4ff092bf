"""Batches of documents, and what cleaning makes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pydantic

from preprocessing.cleaning import CleaningConfig
from preprocessing.cleaning.cleaner import Cleaner
from preprocessing.documents import SCHEMA, document_id

NOTHING: dict[str, Any] = {
    "html_entities": False,
    "control_characters": False,
    "unicode": "none",
    "white_space": False,
    "personal_data": None,
    "profiles": {"default": {"gopher": None, "repetition": None}},
}
"""Every step switched off."""

_ADAPTER: pydantic.TypeAdapter[CleaningConfig] = pydantic.TypeAdapter(CleaningConfig)


def decode(plain: dict[str, Any]) -> CleaningConfig:
    """As from a configuration file."""
    return _ADAPTER.validate_json(json.dumps(plain), strict=True)


def only(**steps: Any) -> CleaningConfig:
    """A configuration with nothing but some steps."""
    return decode(NOTHING | steps)


def filters(language: str = "en", **sections: Any) -> CleaningConfig:
    """A configuration with nothing but some sections of a language's profile."""
    off: dict[str, Any] = {"gopher": None, "repetition": None}
    if language == "default":
        return only(profiles={"default": off | sections})
    return only(profiles={"default": off, language: sections})


def batch(texts: Sequence[str], languages: Sequence[str | None] | None = None) -> pa.RecordBatch:
    """Documents as ingest writes them."""
    columns = [
        [document_id(text) for text in texts],
        list(texts),
        ["a.txt"] * len(texts),
        list(range(len(texts))),
        list(languages or [None] * len(texts)),
        [None] * len(texts),
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def reasons(config: CleaningConfig, texts: Sequence[str], language: str = "en") -> list[str]:
    """Why each text is rejected; ``""`` where it is not."""
    kept, rejected = Cleaner(config).clean(batch(texts, [language] * len(texts)))
    found = {row.offset: row.reason for row in rejected}
    assert sorted([*found, *kept.column("offset").to_pylist()]) == list(range(len(texts)))
    return [found.get(index, "") for index in range(len(texts))]


def cleaned(config: CleaningConfig, text: str, language: str = "en") -> str:
    """One text that is kept."""
    kept, rejected = Cleaner(config).clean(batch([text], [language]))
    assert not rejected
    (result,) = kept.column("text").to_pylist()
    return str(result)
