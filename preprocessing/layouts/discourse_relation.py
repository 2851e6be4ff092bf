"""Discourse relations (ERNIE 2.0, arXiv 1907.12412, section 3.2.3): what joins two clauses?

Pairs are mined by explicit markers, as Sileo et al. 2019 do (arXiv 1903.11850): the marker names
the relation and is taken out of the text. Of a sentence that begins with one and a comma, A is the
sentence before it; of one with a comma and a marker in it, A is what stands before the comma.

    It rained. However, we went out.     A = It rained.    B = we went out.          contrast
    We went out, because it was dry.     A = We went out   B = it was dry.           cause
    He, however, stayed.                 nothing: a comma behind it makes it an aside
    They had bread, butter and tea.      nothing

A sentence makes one pair at most, by the marker it begins with, else by the first in it; of markers
that begin alike the longest counts. The class of a relation is its place among their names, sorted.
Markers are looked for among the tokens: a vocabulary of characters without a space knows no end of
a word, and finds "but" in "butter".

Deviations: the paper's 174 markers are classes by themselves, here they are grouped by relation (a
recipe may give each its own, up to 127); clauses within a sentence are used, too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import numpy as np
import pydantic
from numpy.typing import NDArray

from configs.schema import config, setting
from preprocessing.layouts.base import Cut, Layout, Material, sequence_id
from preprocessing.layouts.pairs import Pair, cut_pairs
from preprocessing.storage import InputError
from preprocessing.tokens import TokenStore
from preprocessing.vocabulary import Vocabulary

ENGLISH: Mapping[str, tuple[str, ...]] = {
    "alternative": ("alternatively", "instead", "rather"),
    "cause": (
        "accordingly", "as a result", "because", "consequently", "hence", "therefore", "thus",
    ),
    "concession": ("although", "even so", "even though", "nevertheless", "nonetheless", "though"),
    "condition": ("if", "in case", "otherwise", "unless"),
    "contrast": (
        "but", "by contrast", "conversely", "however", "in contrast", "on the contrary",
        "on the other hand", "whereas",
    ),
    "expansion": (
        "additionally", "also", "besides", "furthermore", "in addition", "likewise", "moreover",
        "similarly",
    ),
    "instance": ("for example", "for instance"),
    "restatement": ("in fact", "in other words", "in short", "indeed", "that is"),
    "time": (
        "after", "afterwards", "at the same time", "before", "finally", "in the meantime", "later",
        "meanwhile", "subsequently", "then", "until",
    ),
}  # fmt: skip
"""Markers by relation, roughly the second level of the Penn Discourse Treebank's senses."""

_MOST_CLASSES = 127  # labels are signed bytes
_Words: TypeAlias = tuple[int, ...]
_Markers: TypeAlias = Mapping[int, Sequence[tuple[_Words, int]]]
"""By the first id: the ids of markers, longer ones first, with their relations."""


@config
class DiscourseRelationConfig(Layout):
    """Pairs of clauses and sentences by the marker that joined them.

    Attributes:
        markers: by the name of their relation, as they stand within a sentence.
        min_tokens: of each side of a pair.
    """

    kind: Literal["discourse_relation"]
    markers: Mapping[str, tuple[str, ...]] = setting(default=dict(ENGLISH))
    min_tokens: Annotated[int, pydantic.Field(ge=1)] = 3

    def __post_init__(self) -> None:
        named = [marker for markers in self.markers.values() for marker in markers]
        if not 2 <= len(self.markers) <= _MOST_CLASSES:
            raise ValueError(f"markers: give 2 to {_MOST_CLASSES} relations")
        if not all(self.markers.values()) or not all(marker.strip() for marker in named):
            raise ValueError("markers: every relation needs a marker, and every marker a letter")
        repeated = sorted({marker for marker in named if named.count(marker) > 1})
        if repeated:
            raise ValueError(f"markers: {', '.join(repeated)} given more than once")

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations in the order of their classes."""
        return tuple(sorted(self.markers))

    def label(self) -> str:
        """The place of the relation in :attr:`relations`."""
        return "discourse_relation"

    def bind(self, vocabulary: Vocabulary) -> MarkedPairs:
        """With the markers as ids.

        Raises:
            InputError: the vocabulary cannot spell one.
        """
        leading, inner = {}, {}
        for relation, name in enumerate(self.relations):
            for marker in self.markers[name]:
                begun = marker[0].upper() + marker[1:]
                leading[_within(vocabulary, f"a {begun}, a", marker)] = relation
                inner[_within(vocabulary, f"a, {marker} a", marker)] = relation
        return MarkedPairs(_by_first_id(leading), _by_first_id(inner), self.min_tokens)

    def cut(self, material: Material) -> Cut:
        """Only what :meth:`bind` returns can cut."""
        raise ValueError("bind the layout to a vocabulary first")


@dataclass(frozen=True)
class MarkedPairs:
    """The layout of one vocabulary.

    Attributes:
        leading: what sentences begin with: markers with the comma behind them.
        inner: what stands in sentences: markers with the comma before them.
    """

    leading: _Markers
    inner: _Markers
    min_tokens: int

    def cut(self, material: Material) -> Cut:
        """Pairs of at most ``length`` tokens, specials included."""
        pairs = [
            pair for document in material.documents for pair in self._mine(material.store, document)
        ]
        return cut_pairs(pairs, material, "discourse")

    def _mine(self, store: TokenStore, document: int) -> Iterator[Pair]:
        own = store.ids(document)
        ids, starts_word = own.tolist(), store.word_starts(document)
        bounds = [0, *np.cumsum(store.sentence_lengths(document)).tolist()]
        (commas,) = np.nonzero(np.isin(own, list(self.inner)))
        of_sentence = np.searchsorted(commas, bounds).tolist()
        before = 0
        for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
            inside = commas[of_sentence[number] : of_sentence[number + 1]].tolist()
            parted = self._part(ids, starts_word, (before, start, stop), inside)
            before = start
            if parted is None:
                continue
            first, first_stop, second, relation = parted
            if min(first_stop - first, stop - second) >= self.min_tokens:
                own_id = sequence_id(document, number)
                yield Pair(own_id, document, first, first_stop, document, second, stop, relation)

    def _part(
        self,
        ids: Sequence[int],
        starts_word: NDArray[np.bool_],
        bounds: tuple[int, int, int],
        commas: Sequence[int],
    ) -> tuple[int, int, int, int] | None:
        """Where A starts and stops, where B starts, and the relation; None where no marker is.

        Args:
            bounds: where the sentence before starts, where this one does, and where it stops.
            commas: in this sentence.
        """
        before, start, stop = bounds
        if found := _match(self.leading, ids, start, stop):
            size, relation = found
            return before, start, start + size, relation
        for comma in commas:
            if found := _match(self.inner, ids, comma, stop):
                size, relation = found
                behind = comma + size
                if behind < stop and starts_word[behind] and ids[behind] not in self.inner:
                    return start, comma, behind, relation
        return None


def _match(markers: _Markers, ids: Sequence[int], place: int, stop: int) -> tuple[int, int] | None:
    """The length and relation of the longest marker at a place."""
    for words, relation in markers.get(ids[place], ()):
        end = place + len(words)
        if end <= stop and tuple(ids[place:end]) == words:
            return len(words), relation
    return None


def _by_first_id(markers: Mapping[_Words, int]) -> _Markers:
    sorted_markers = sorted(markers.items(), key=lambda item: -len(item[0]))
    return {
        first: [item for item in sorted_markers if item[0][0] == first]
        for first in {words[0] for words in markers}
    }


def _within(vocabulary: Vocabulary, text: str, marker: str) -> _Words:
    """The ids of what stands between two letters ``a`` in a text that begins and ends with them."""
    before, both, ids = vocabulary.encode(["a", "a a", text])
    # A space that is a token by itself belongs to the marker, and says that it ends there.
    behind = before if both[-len(before) :] == before else both[len(before) :]
    words = ids[len(before) : len(ids) - len(behind)]
    whole = ids[: len(before)] == before and ids[len(ids) - len(behind) :] == behind
    if not whole or not words or vocabulary.unknown_id in words:
        raise InputError(
            f"examples: layout 'discourse_relation': the vocabulary cannot spell '{marker}'; leave "
            "it out of markers"
        )
    return tuple(words)
