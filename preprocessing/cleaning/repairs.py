"""Repairs that every document may need: entities, controls, Unicode normalisation, white space.

They go in this order, since an entity may stand for a control, a control may stand between a
letter and its accent, and compatibility forms may hold spaces. Done twice they change nothing
more, but for entities: ``&amp;lt;`` is ``&lt;`` after one repair, since that is what it says.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from preprocessing.cleaning.settings import CleaningConfig

_FORMS: dict[str, Literal["NFC", "NFKC"]] = {"nfc": "NFC", "nfkc": "NFKC"}
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
# C0, C1 and DEL without white space; soft hyphens; deprecated formatting; byte-order marks;
# interlinear annotation. Joiners and marks of direction stay: they are part of how words are
# written.
_CONTROLS = "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u206a-\u206f\ufeff\ufff9-\ufffb"
_CONTROL = re.compile(f"[{_CONTROLS}]")
_SPACES = "\t\x0b-\r\x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_UNTIDY = re.compile(r"\s{2,}|[^\S\n ]")
_LINE_END = re.compile("\r\n|[\n\r\x0b\x0c\x85\u2028\u2029]")
# Whether any of it is to be found, for RE2.
_SIGNS = {
    "html_entities": "&",
    "control_characters": f"[{_CONTROLS}]",
    "white_space": rf"[{_SPACES}]|  | \n|\n |\n\n\n|\A[ \n]|[ \n]\z",
}


class Repairs:
    """The repairs that are switched on.

    Attributes:
        documents: how many documents each of them changed.
        occurrences: how often; Unicode normalisation counts documents here, too.
    """

    def __init__(self, config: CleaningConfig) -> None:
        self._entities = config.html_entities
        self._controls = config.control_characters
        self._form = _FORMS.get(config.unicode)
        self._white_space = config.white_space
        self._signs = "|".join(sign for name, sign in _SIGNS.items() if getattr(config, name))
        self.documents: Counter[str] = Counter()
        self.occurrences: Counter[str] = Counter()

    def apply(self, texts: pa.LargeStringArray) -> pa.LargeStringArray:
        """The texts as they should be; a column that needs no repair comes back as it is."""
        suspects = self._suspects(texts)
        if not len(suspects):
            return texts
        changed = texts.to_pylist()
        for index in suspects.tolist():
            changed[index] = self.repair(changed[index])
        return pa.array(changed, pa.large_string())

    def _suspects(self, texts: pa.LargeStringArray) -> NDArray[np.int64]:
        """The places of texts that may need a repair, found at Arrow's speed."""
        suspects = np.zeros(len(texts), np.bool_)
        if self._signs:
            signs = pyarrow.compute.match_substring_regex(texts, self._signs)
            suspects |= signs.to_numpy(zero_copy_only=False)
        if self._form is not None:
            ascii_only = pyarrow.compute.string_is_ascii(texts).to_numpy(zero_copy_only=False)
            for index in np.flatnonzero(~ascii_only & ~suspects).tolist():
                suspects[index] = not unicodedata.is_normalized(self._form, texts[index].as_py())
        return np.flatnonzero(suspects)

    def repair(self, text: str) -> str:
        """One text as it should be."""
        if self._entities and "&" in text:
            resolved = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
            if resolved != text:
                changed = (match[0] for match in _ENTITY.finditer(text))
                self._count("html_entities", sum(html.unescape(one) != one for one in changed))
                text = resolved
        if self._controls:
            text, removed = _CONTROL.subn("", text)
            self._count("control_characters", removed)
        if self._form is not None and not unicodedata.is_normalized(self._form, text):
            text = unicodedata.normalize(self._form, text)
            self._count("unicode", 1)
        if self._white_space:
            text = self._tidy(text)
        return text

    def _tidy(self, text: str) -> str:
        changes = 0

        def tidied(match: re.Match[str]) -> str:
            nonlocal changes
            run = match[0]
            around = match.start() == 0 or match.end() == len(text)
            lines = len(_LINE_END.findall(run))
            tidy = "" if around else "\n" * min(lines, 2) or " "
            changes += tidy != run
            return tidy

        tidy = _UNTIDY.sub(tidied, text)
        stripped = tidy.strip()
        self._count("white_space", changes + (stripped != tidy))
        return stripped

    def _count(self, repair: str, occurrences: int) -> None:
        if occurrences:
            self.documents[repair] += 1
            self.occurrences[repair] += occurrences
