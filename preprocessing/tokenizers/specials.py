"""The roles that special tokens play, and the names under which vocabularies hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

Role = Literal["pad", "unknown", "start", "separator", "mask", "end"]

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""What the vocabularies trained here call them; ids 0 to 4."""

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
