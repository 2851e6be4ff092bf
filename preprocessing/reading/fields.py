"""Records with named fields: where their text, language and licence are."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from preprocessing.reading.base import Found, Reject
from preprocessing.reading.settings import ReadingConfig

JOINER = "\n"
"""Between the texts of several fields."""

MISSING = object()

_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass
class Rows:
    """Texts one by one, until there are enough of them."""

    texts: list[bytes] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    languages: list[str | None] = field(default_factory=list)
    licences: list[str | None] = field(default_factory=list)
    replaced: int = 0
    size: int = 0

    def add(
        self, text: bytes, offset: int, language: str | None = None, licence: str | None = None
    ) -> None:
        """Append one."""
        self.texts.append(text)
        self.offsets.append(offset)
        self.languages.append(language)
        self.licences.append(licence)
        self.size += len(text)

    def take(self) -> Found:
        """All of them; none are left."""
        found = Found(
            pa.array(self.texts, pa.large_binary()),
            np.array(self.offsets, dtype=np.int64),
            self.languages if any(self.languages) else None,
            self.licences if any(self.licences) else None,
            self.replaced,
        )
        self.__init__()  # type: ignore[misc]
        return found


def add_value(value: Any, offset: int, reading: ReadingConfig, rows: Rows) -> Reject | None:
    """Append what a JSON value, an object or a string, has for a text, or say why it has none."""
    language = licence = None
    if isinstance(value, str):
        text = value
    elif isinstance(value, dict):
        found = _text(value, offset, reading.text_fields)
        if isinstance(found, Reject):
            return found
        text = found
        language = _label(value, reading.language_field)
        licence = _label(value, reading.licence_field)
    else:
        return Reject("invalid_json", offset, f"neither an object nor a string but {kind(value)}")
    try:
        data = text.encode()
    except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair
        if reading.invalid_bytes == "reject":
            return Reject("lone_surrogate", offset, f"character {error.start}: {error.reason}")
        text, count = _SURROGATES.subn("\ufffd", text)
        data = text.encode()
        rows.replaced += count
    rows.add(data, offset, language, licence)
    return None


def _text(value: dict[str, Any], offset: int, names: Sequence[str]) -> str | Reject:
    texts = []
    for name in names:
        text = look_up(value, name)
        if text is MISSING or text is None:
            continue
        if not isinstance(text, str):
            return Reject("missing_text", offset, f"'{name}' is {kind(text)}, not a string")
        texts.append(text)
    if texts:
        return texts[0] if len(texts) == 1 else JOINER.join(texts)
    name = names[0]
    if look_up(value, name) is None:
        return Reject("missing_text", offset, f"'{name}' is null")
    keys = ", ".join(list(value)[:8])[:200].encode(errors="backslashreplace").decode()
    return Reject("missing_text", offset, f"no '{name}' among its keys: {keys}")


def look_up(value: Any, name: str) -> Any:
    """The field ``a.b`` of an object: of that very name, else ``b`` in the object ``a``.

    In a list, a number counts from 0. :data:`MISSING` where there is none.
    """
    if isinstance(value, dict) and name in value:
        return value[name]
    for part in name.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return MISSING
    return value


def _label(value: dict[str, Any], name: str | None) -> str | None:
    found = None if name is None else look_up(value, name)
    return None if found is MISSING else label(found)


def label(value: Any) -> str | None:
    """A language or licence as a string; lists and numbers as JSON spells them."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return str(value).encode(errors="replace").decode()


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {bool: "true or false", float: "a number", str: "a string", dict: "an object"}
    return "null" if value is None else names.get(type(value), "a list")
