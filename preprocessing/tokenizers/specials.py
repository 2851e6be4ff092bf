"""The roles that special tokens play, and the names under which vocabularies hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

Role = Literal["pad", "unknown", "start", "separator", "mask"]

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""What the vocabularies trained here call them; ids 0 to 4."""

USUAL_NAMES: Mapping[Role, tuple[str, ...]] = {
    "pad": ("[PAD]", "<pad>"),
    "unknown": ("[UNK]", "<unk>"),
    "start": ("[CLS]", "<cls>", "<s>"),
    "separator": ("[SEP]", "<sep>", "</s>"),
    "mask": ("[MASK]", "<mask>"),
}
"""Names that are recognised, the first one that a vocabulary holds; XLNet's has ``<cls>`` and
``<s>`` and means the former."""


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
