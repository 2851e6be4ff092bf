"""Relevance of a title to a query (ERNIE 2.0, arXiv 1907.12412, section 3.2.3).

    0  the title was clicked    1  it was shown, and not clicked    2  it is a random one

The triples come from a search engine's log, which is a source of the corpus like any other: its
documents have a line or more of query, then a line with nothing but the label, then the title.
Files of JSON lines, CSV or TSV are read so by naming their fields in that order:

    corpus:
      sources:
        clicks: {inputs: [clicks.tsv], form: tsv, text_field: [query, label, title]}

    document of the lines "how tall is k2", "1", "Mountains of Asia":
    A = how tall is k2    B = Mountains of Asia    label 1

Logs often have no random titles: ``random_probability`` replaces a title by that of another triple,
drawn uniformly, whose label then is 2.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import numpy as np
import pydantic

from configs.schema import config
from preprocessing.draws import integers, uniform
from preprocessing.layouts.base import Cut, Layout, Material, sequence_id
from preprocessing.layouts.pairs import Pair, cut_pairs
from preprocessing.storage import InputError
from preprocessing.tokens import TokenStore
from preprocessing.vocabulary import Vocabulary

RANDOM = 2
_LABELS = ("0", "1", "2")
_IS_RANDOM, _PARTNER = 6, 7  # those below are taken by truncation
_Line: TypeAlias = tuple[int, ...]


@config
class RelevanceConfig(Layout):
    """Pairs of a query and a title.

    Attributes:
        random_probability: that a triple gets another one's title.
    """

    kind: Literal["relevance"]
    random_probability: Annotated[float, pydantic.Field(ge=0.0, le=1.0)] = 0.0

    def label(self) -> str:
        """0 clicked, 1 shown, 2 random."""
        return "relevance"

    def bind(self, vocabulary: Vocabulary) -> Triples:
        """With the labels as ids.

        Raises:
            InputError: the vocabulary cannot spell them.
        """
        *lines, ends = vocabulary.encode([*_LABELS, "\n"])
        labels = {
            tuple(i for i in line if i not in ends): int(name)
            for line, name in zip(lines, _LABELS, strict=True)
        }
        if len(labels) != len(_LABELS) or any(vocabulary.unknown_id in line for line in labels):
            raise InputError(
                "examples: layout 'relevance': the vocabulary cannot spell the labels 0, 1 and 2"
            )
        return Triples(labels, frozenset(ends), self.random_probability)

    def cut(self, material: Material) -> Cut:
        """Only what :meth:`bind` returns can cut."""
        raise ValueError("bind the layout to a vocabulary first")


@dataclass(frozen=True)
class Triples:
    """The layout of one vocabulary.

    Attributes:
        labels: by the ids of their lines.
        line_ends: ids of line ends, in vocabularies that have any.
    """

    labels: dict[_Line, int]
    line_ends: frozenset[int]
    random_probability: float

    def cut(self, material: Material) -> Cut:
        """One pair a document, of at most ``length`` tokens, specials included.

        Raises:
            InputError: a document is no triple.
        """
        ids = np.array(
            [sequence_id(document, 0) for document in material.documents], dtype=np.uint64
        )
        keys = material.keys("relevance", ids)
        others = material.store.num_documents - 1
        is_random = (uniform(keys, 0, _IS_RANDOM) < self.random_probability) & (others > 0)
        partners = integers(keys, 0, _PARTNER, others)
        pairs = []
        for index, document in enumerate(material.documents):
            query_stop, label, title_start, title_stop = self._parts(material.store, document)
            title = (document, title_start, title_stop)
            if is_random[index]:
                partner = int(partners[index])
                partner += partner >= document
                label, title = RANDOM, (partner, *self._parts(material.store, partner)[2:])
            pairs.append(Pair(int(ids[index]), document, 0, query_stop, *title, label))
        return cut_pairs(pairs, material, "relevance")

    def _parts(self, store: TokenStore, document: int) -> tuple[int, int, int, int]:
        """Where the query stops, the label, and where the title starts and stops."""
        ids = store.ids(document).tolist()
        bounds = [0, *np.cumsum(store.sentence_lengths(document)).tolist()]
        for start, stop in itertools.pairwise(bounds[1:-1]):
            label = self.labels.get(tuple(i for i in ids[start:stop] if i not in self.line_ends))
            if label is not None:
                return start, label, stop, len(ids)
        raise InputError(
            f"document {document} of the tokens is no triple of query, label and title: there is "
            "no line 0, 1 or 2 within it; name text_field: [query, label, title] of the source, "
            "and lay out no other source by 'relevance'"
        )
