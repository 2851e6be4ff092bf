"""The roles that special tokens play, and the names under which vocabularies hold them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

Role = Literal["pad", "unknown", "start", "separator", "mask", "end"]

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""What the vocabularies trained here call them, where nothing else is said; ids 0 to 4."""

USUAL_NAMES: Mapping[Role, tuple[str, ...]] = {
    "pad": ("[PAD]", "<pad>"),
    "unknown": ("[UNK]", "<unk>"),
    "start": ("[CLS]", "<cls>", "<s>"),
    "separator": ("[SEP]", "<sep>", "</s>"),
    "mask": ("[MASK]", "<mask>"),
    "end": ("<eod>",),
}
"""Names that are recognised, the first one that a vocabulary holds; XLNet's has ``<cls>`` and
``<s>`` and means the former."""

_BRACKETED = re.compile(r"(?=.*[^\W_])(\[[^\s\[\]]+\]|<[^\s<>]+>)")
_SENTINEL = re.compile(r"<extra_id_[0-9]+>")


def sentinel_name(number: int) -> str:
    """What the token that stands for a removed span is called, as in T5; numbers start at 0."""
    return f"<extra_id_{number}>"


def find_sentinels(token_to_id: Callable[[str], int | None]) -> dict[str, int]:
    """The sentinels of a vocabulary, as far as their numbers have no gap, with their ids."""
    found: dict[str, int] = {}
    while True:
        name = sentinel_name(len(found))
        index = token_to_id(name)
        if index is None:
            return found
        found[name] = index


def recognise(
    token_to_id: Callable[[str], int | None], given: Mapping[Role, str]
) -> dict[Role, str]:
    """The token of each role: the given one, or the first of the usual names that exists.

    A role that no token plays is left out.

    Raises:
        ValueError: a given name is not in the vocabulary.
    """
    absent = sorted(name for name in given.values() if token_to_id(name) is None)
    if absent:
        raise ValueError(f"tokenizer.specials: the vocabulary has no {', '.join(absent)}")
    names: dict[Role, str] = {}
    for role, usual in USUAL_NAMES.items():
        candidates = (given[role],) if role in given else usual
        found = next((name for name in candidates if token_to_id(name) is not None), None)
        if found is not None:
            names[role] = found
    return names


def roles_of(tokens: Sequence[str]) -> dict[Role, str]:
    """The token of each role that one of ``tokens`` plays by its name.

    >>> roles_of(["<s>", "<pad>", "</s>", "<eop>"])
    {'pad': '<pad>', 'start': '<s>', 'separator': '</s>'}
    """
    return recognise({token: index for index, token in enumerate(tokens)}.get, {})


def check_special_tokens(tokens: Sequence[str], needed: Sequence[Role]) -> None:
    """Refuse special tokens that a vocabulary cannot be trained with.

    Two names of a role that differ in more than their brackets may stand beside each other: XLNet
    has ``<s>`` and ``<cls>``.

    Raises:
        ValueError: naming a token that stands there twice or is not written ``[...]`` or
            ``<...>``, a sentinel, two tokens for one role, or a role that none plays.
    """
    problems = [
        f"{token} is not written [...] or <...>, which no piece of text is"
        for token in tokens
        if not _BRACKETED.fullmatch(token)
    ]
    problems += [
        f"{token} is a sentinel; ask for those with tokenizer.sentinels"
        for token in tokens
        if _SENTINEL.fullmatch(token)
    ]
    known = {name for usual in USUAL_NAMES.values() for name in usual}
    alike: dict[str, list[str]] = {}
    for token in tokens:
        alike.setdefault(_bare(token) if token in known else token, []).append(token)
    problems += [f"{' and '.join(same)} are one" for same in alike.values() if len(same) > 1]
    roles = roles_of(tokens)
    problems += [
        f"none is {' or '.join(USUAL_NAMES[role])}" for role in needed if role not in roles
    ]
    if problems:
        raise ValueError("special_tokens: " + "; ".join(problems))


def _bare(name: str) -> str:
    return name.strip("[]<>").lower()
