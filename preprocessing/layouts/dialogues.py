"""Three turns of a dialogue, real or with one of them from elsewhere (ERNIE 1.0, arXiv 1904.09223).

For dialogue language modelling (section 3.3 there). A document is a dialogue; each turn begins on a
line of its own with the mark of its speaker and goes on until the next mark. Who speaks first asks
(Q), the other one responds (R):

    甲：几点了            turns of 甲, 乙, 甲:   [CLS] 几点了 [SEP] 三点 [SEP] 谢谢 [SEP]
    乙：三点              segment ids                 2   2 2 2   2    3 3   3    2 2   2    QRQ
    甲：谢谢

Turns of 甲 乙 乙 are QRR and those of 甲 甲 乙 are QQR; of three by one speaker the first one is
passed over. Marks are not shown. The three are followed by three others; of a longer dialogue up to
two turns are left out before the first three, by a draw for each copy.

With probability ``fake_probability`` one of the three, query or response, is replaced by a random
turn of another document; the label is 1 then and 0 where the dialogue is real. Where three are too
long, the longest turn loses tokens at its end until it is as short as the next one, and so on.

Roles are the segment ids 2 and 3, behind those of pairs: a model keeps both in one table, and a
dialogue's take the place of the others, as in the paper.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, TypeAlias

import numpy as np
import pydantic

from configs.schema import config
from preprocessing.draws import integers, uniform
from preprocessing.layouts.base import (
    Cut,
    Layout,
    Material,
    Spans,
    document_of,
    sequence_id,
)
from preprocessing.storage import InputError
from preprocessing.tokens import TokenStore
from preprocessing.vocabulary import Vocabulary

REAL, FAKE = 0, 1
QUERY, RESPONSE = 2, 3
"""Segment ids."""
TURNS = 3

_OFFSET = 0  # a document's draw
_IS_FAKE, _WHICH, _PARTNER, _PARTNER_TURN = 0, 1, 2, 3  # a sequence's draws
Mark: TypeAlias = Annotated[str, pydantic.Field(pattern=r"\S")]
_Span: TypeAlias = tuple[int, int, int]


@config
class DialoguesConfig(Layout):
    """Three turns with their roles, and whether all of them belong together.

    Attributes:
        speakers: the marks that turns begin with, one or several of each of the two speakers.
        fake_probability: that one of the turns is replaced. The paper does not say how often.
    """

    kind: Literal["dialogues"]
    speakers: tuple[Mark | tuple[Mark, ...], Mark | tuple[Mark, ...]]
    fake_probability: Annotated[float, pydantic.Field(ge=0.0, le=1.0)] = 0.5

    def label(self) -> str:
        """0 where the dialogue is real, 1 where a turn comes from elsewhere."""
        return "dialogue_response"

    def num_segments(self) -> int:
        """Two for pairs, which are not used here, then query and response."""
        return RESPONSE + 1

    def bind(self, vocabulary: Vocabulary) -> Dialogues:
        """With the marks as ids.

        Raises:
            InputError: the vocabulary cannot spell one, or spells those of both speakers alike.
        """
        marks: dict[tuple[int, ...], int] = {}
        for speaker, given in enumerate(self.speakers):
            for mark in (given,) if isinstance(given, str) else given:
                ids = tuple(vocabulary.encode([mark])[0])
                if not ids or vocabulary.unknown_id in ids or marks.get(ids, speaker) != speaker:
                    raise InputError(
                        f"examples: layout 'dialogues': the vocabulary cannot tell the mark "
                        f"'{mark}' from others; choose marks of characters that it has"
                    )
                marks[ids] = speaker
        longest_first = sorted(marks.items(), key=lambda item: -len(item[0]))
        return Dialogues(tuple(longest_first), self.fake_probability)

    def cut(self, material: Material) -> Cut:
        """Only what :meth:`bind` returns can cut."""
        raise ValueError("bind the layout to a vocabulary first")


class Turn(NamedTuple):
    """What one speaker says: tokens ``[start, stop)`` of the document, without the mark."""

    speaker: int
    start: int
    stop: int


@dataclass(frozen=True)
class Dialogues:
    """The layout of one vocabulary.

    Attributes:
        marks: ids of the marks with the number of their speaker, longer ones first.
    """

    marks: Sequence[tuple[tuple[int, ...], int]]
    fake_probability: float

    def cut(self, material: Material) -> Cut:
        """Three turns each, of at most ``length`` tokens together, specials included.

        Raises:
            InputError: a document does not begin with the mark of a speaker.
        """
        ids: list[int] = []
        threes: list[tuple[Turn, ...]] = []
        for document in material.documents:
            found = self._threes(material, document)
            for index, three in enumerate(found):
                ids.append(sequence_id(document, index))
                threes.append(three)
        sequences = np.array(ids, dtype=np.uint64)
        keys = material.keys("dialogues", sequences)
        fake = uniform(keys, 0, _IS_FAKE) < self.fake_probability
        fake &= material.store.num_documents > 1
        replaced = integers(keys, 0, _WHICH, TURNS)
        room = material.room(TURNS)
        pieces: list[_Span] = []
        for index, (sequence, three) in enumerate(zip(ids, threes, strict=True)):
            document = document_of(sequence)
            spans = [(document, turn.start, turn.stop) for turn in three]
            if fake[index]:
                stranger = self._stranger(material.store, document, keys[index])
                fake[index] = stranger is not None
                spans[replaced[index]] = stranger or spans[replaced[index]]
            pieces += _fitted(spans, room)
        table = np.array(pieces, dtype=np.int64).reshape(-1, 3)
        roles = [
            QUERY if turn.speaker == three[0].speaker else RESPONSE
            for three in threes
            for turn in three
        ]
        return Cut(
            ids=sequences,
            pieces=Spans(table[:, 0], table[:, 1], table[:, 2]),
            offsets=TURNS * np.arange(len(ids) + 1),
            first_pieces=np.ones(len(ids), dtype=np.int64),
            labels=np.where(fake, FAKE, REAL),
            frame=material.frame,
            segments=np.array(roles, dtype=np.int64),
        )

    def _threes(self, material: Material, document: int) -> Iterator[tuple[Turn, ...]]:
        """Turns that follow each other, by both speakers."""
        turns = self.turns(material.store, document)
        key = material.keys("dialogues of document", np.array([document]))
        place = int(integers(key, 0, _OFFSET, max(1, min(TURNS, len(turns) - TURNS + 1)))[0])
        while place + TURNS <= len(turns):
            three = tuple(turns[place : place + TURNS])
            if len({turn.speaker for turn in three}) > 1:
                yield three
                place += TURNS
            else:
                place += 1

    def turns(self, store: TokenStore, document: int) -> list[Turn]:
        """The turns of a document; those without words are left out.

        Raises:
            InputError: it does not begin with the mark of a speaker.
        """
        ids = store.ids(document).tolist()
        starts = np.cumsum([0, *store.sentence_lengths(document)]).tolist()
        begun = [(start, *found) for start in starts[:-1] if (found := self._mark(ids, start))]
        if ids and (not begun or begun[0][0] > 0):
            raise InputError(
                f"document {document} of the tokens does not begin with the mark of a speaker; "
                "name the marks of your dialogues in layout.speakers, and give a document a "
                "dialogue (corpus.form)"
            )
        stops = [*(start for start, *_ in begun), len(ids)][1:]
        return [
            Turn(speaker, start + size, stop)
            for (start, size, speaker), stop in zip(begun, stops, strict=True)
            if start + size < stop
        ]

    def _mark(self, ids: Sequence[int], place: int) -> tuple[int, int] | None:
        """How long the mark at a place is, and whose; None where none stands there."""
        for mark, speaker in self.marks:
            if tuple(ids[place : place + len(mark)]) == mark:
                return len(mark), speaker
        return None

    def _stranger(self, store: TokenStore, document: int, key: np.uint64) -> _Span | None:
        """A turn of another document; None where that one has no words."""
        one = np.array([key], dtype=np.uint64)
        partner = int(integers(one, 0, _PARTNER, store.num_documents - 1)[0])
        partner += partner >= document
        turns = self.turns(store, partner)
        if not turns:
            return None
        chosen = turns[int(integers(one, 0, _PARTNER_TURN, len(turns))[0])]
        return partner, chosen.start, chosen.stop


def _fitted(spans: Sequence[_Span], room: int) -> list[_Span]:
    """Spans without the ends of the longest ones, so that all together have at most ``room``.

    >>> _fitted([(0, 0, 9), (0, 9, 11), (0, 11, 20)], 12)
    [(0, 0, 5), (0, 9, 11), (0, 11, 16)]
    """
    fitted = list(spans)
    by_length = sorted(range(len(spans)), key=lambda number: spans[number][2] - spans[number][1])
    for number, left in zip(by_length, itertools.count(len(spans), -1), strict=False):
        document, start, stop = spans[number]
        kept = min(stop - start, room // left)
        fitted[number] = document, start, start + kept
        room -= kept
    return fitted
