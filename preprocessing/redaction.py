"""Secrets never leave: what is printed, logged or written down passes through :func:`redact`.

>>> redact("https://ann:pw@host/a?token=abc&part=2")
'https://***@host/a?token=***&part=2'
"""

from __future__ import annotations

import os
import re
from typing import Any

HIDDEN = "***"

_SECRET_NAME = (
    # "tokenizer" and "tokens" are words of this trade
    r"(?:[\w.-]*(?:secret|passw(?:or)?d|passwd|token(?!iz|s)|credential|signature|api[_-]?key"
    r"|access[_-]?key|account[_-]?key|private[_-]?key|authorization|connection_string)[\w.-]*"
    r"|sig|key|pwd|auth|awsaccesskeyid|googleaccessid)"
)
_USERINFO = re.compile(
    # a password may hold a slash although it should be spelled %2F
    r"(?P<scheme>[A-Za-z][\w+.-]*://)(?:[^/\s'\"<>?#]*|[^/\s:@'\"<>?#]*:[^\s@'\"<>]*)@"
)
_QUERY = re.compile(
    rf"(?P<name>[?&;](?:amp;)?{_SECRET_NAME}=)(?P<value>[^&\s'\"<>#;)\]]*)", re.IGNORECASE
)
_ASSIGNED = re.compile(
    # 'secret': 'x', "key" = "x", secret=x; a bare value must be marked by an explicit sign
    rf"(?P<name>(?P<quote>['\"]){_SECRET_NAME}(?P=quote)\s*[:=]\s*)"
    r"(?P<value>'[^']*'|\"[^\"]*\"|[^\s,}\])'\"]+)"
    r"|(?P<bare>\b(?!key=|auth=)" + _SECRET_NAME + r"\s?=\s?)"
    r"(?P<plain>'[^']*'|\"[^\"]*\"|[^\s,}\])&'\"]+)",
    re.IGNORECASE,
)
_HEADER = re.compile(r"\b(?P<name>(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{8,}")
_KNOWN_FORMS = re.compile(
    r"\b(?:(?:AKIA|ASIA)[A-Z0-9]{16}|hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}"
    r"|AIza[A-Za-z0-9_-]{30,})\b"
)
_SECRET_VARIABLE = re.compile(
    r"SECRET|PASSW|TOKEN|CREDENTIAL|API_?KEY|ACCESS_?KEY|ACCOUNT_?KEY|SAS|CONNECTION_STRING"
)
_LEAST_CHARACTERS = 8
"""Shorter values of variables are words that may stand anywhere."""


def redact(text: str) -> str:
    """A text without the secrets of URLs, storage options, headers and the environment."""
    for name, value in os.environ.items():
        if (
            len(value) >= _LEAST_CHARACTERS
            and value in text
            and _SECRET_VARIABLE.search(name.upper())
            and not os.path.isabs(value)  # a file that holds a secret is none
        ):
            text = text.replace(value, HIDDEN)
    text = _USERINFO.sub(rf"\g<scheme>{HIDDEN}@", text)
    text = _QUERY.sub(rf"\g<name>{HIDDEN}", text)
    text = _ASSIGNED.sub(_hide_assigned, text)
    text = _HEADER.sub(rf"\g<name>{HIDDEN}", text)
    return _KNOWN_FORMS.sub(HIDDEN, text)


def _hide_assigned(match: re.Match[str]) -> str:
    return f"{match['name'] or match['bare']}{HIDDEN}"


def redact_values(value: Any) -> Any:
    """Plain values, as a configuration holds them, with every string redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(str(key)): redact_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_values(item) for item in value]
    return value
