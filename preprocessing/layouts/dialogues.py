"""Three turns of a dialogue, real or with one of them from elsewhere (ERNIE 1.0, arXiv 1904.09223).

For dialogue language modelling (section 3.3 there). A document is a dialogue; each turn begins with
the mark of its speaker and goes on until the next mark. Marks are looked for at the start of every
sentence, and so on every line. Who speaks first asks (Q), the other one responds (R):

    甲：几点了            turns of 甲, 乙, 甲:   [CLS] 几点了 [SEP] 三点 [SEP] 谢谢 [SEP]
    乙：三点              segment ids                 2   2 2 2   2    3 3   3    2 2   2    QRQ
    甲：谢谢

Turns of 甲 乙 乙 are QRR and those of 甲 甲 乙 are QQR; of three by one speaker the first one is
passed over. Marks are not shown. The three are followed by three others; of a longer dialogue up to
two turns are left out before the first three, by a draw for each copy.

With probability ``fake_probability`` one of the three, query or response, is replaced by a random
turn of another document; the label is 1 then and 0 where the dialogue is real, or reads the same as
before. Where three are too
long, the longest turn loses tokens at its end until it is as short as the next one, and so on.

A mark is compared as text, as the vocabulary writes it, so it does not matter which pieces make it
up; but one of them must end where it ends. Where another continues the word, it is no mark: Q is
none in ``Q ##ing`` (a vocabulary of characters without a space knows no end of a word, and finds
it).

Roles are the segment ids 2 and 3, behind those of pairs: a model keeps both in one table, and a
dialogue's take the place of the others, as in the paper.
"""

from __future__ import annotations

import bisect
import itertools
import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Annotated, Literal, NamedTuple, TypeAlias

import numpy as np
import pydantic
from numpy.typing import NDArray

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
from preprocessing.tokenizers.models import SPACE, SentencePieceModel
from preprocessing.tokens import TokenStore
from preprocessing.vocabulary import Vocabulary

REAL, FAKE = 0, 1
QUERY, RESPONSE = 2, 3
"""Segment ids."""
TURNS = 3

_OFFSET = 0  # a document's draw
_IS_FAKE, _WHICH, _PARTNER, _PARTNER_TURN = 0, 1, 2, 3  # a sequence's draws
_CACHED = 512
"""Documents whose turns are remembered: of many others each is read whole for one turn of it."""
_LOOKED_AT = 4  # bytes behind a mark: a character
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")  # sentencepiece's, of characters without a piece
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
        """With the marks as the vocabulary writes them.

        Raises:
            InputError: the vocabulary cannot spell one, or spells those of both speakers alike.
        """
        written = surfaces(vocabulary)
        found: dict[bytes, SpeakerMark] = {}
        for speaker, given in enumerate(self.speakers):
            for mark in (given,) if isinstance(given, str) else given:
                ids = vocabulary.encode([mark])[0]
                surface = b"".join(written[one] for one in ids).strip()
                known = found.setdefault(surface, SpeakerMark(mark, surface, speaker))
                if not surface or vocabulary.unknown_id in ids or known.speaker != speaker:
                    raise InputError(
                        f"examples: layout 'dialogues': the vocabulary cannot tell the mark "
                        f"'{mark}' from others; choose marks of characters that it has"
                    )
        marks = sorted(found.values(), key=lambda mark: -len(mark.surface))
        return Dialogues(Marks(marks, written, vocabulary.continues_word), self.fake_probability)

    def cut(self, material: Material) -> Cut:
        """Only what :meth:`bind` returns can cut."""
        raise ValueError("bind the layout to a vocabulary first")


class SpeakerMark(NamedTuple):
    """What turns of a speaker, 0 or 1, begin with: as given, and as a vocabulary writes it."""

    text: str
    surface: bytes
    speaker: int


@dataclass(frozen=True)
class Marks:
    """The marks of both speakers among the tokens of a vocabulary.

    Attributes:
        marks: longer ones first.
        surfaces: the text of each token ``[size]``.
        continues_word: which tokens by their looks continue a word ``[size]``.
    """

    marks: Sequence[SpeakerMark]
    surfaces: Sequence[bytes]
    continues_word: NDArray[np.bool_]

    @cached_property
    def blank(self) -> NDArray[np.bool_]:
        """``[size]``: tokens that are white space and nothing else."""
        return np.array([not surface.strip() for surface in self.surfaces], dtype=bool)

    @cached_property
    def _longest(self) -> int:
        return max(len(mark.surface) for mark in self.marks)

    def find(self, ids: Sequence[int], place: int, document: int) -> tuple[int, int] | None:
        """How many tokens the mark at a place has, and whose it is; None where none stands there.

        Raises:
            InputError: a token holds the end of a mark and what follows it.
        """
        text, ends = b"", list[int]()
        for one in ids[place : place + self._longest + _LOOKED_AT]:
            text = text + self.surfaces[one] if text else self.surfaces[one].lstrip()
            ends.append(len(text))
            if len(text) >= self._longest + _LOOKED_AT:
                break
        for mark in self.marks:
            if not text.startswith(mark.surface):
                continue
            stop = len(mark.surface)
            size = bisect.bisect_left(ends, stop) + 1
            is_whole = not text[stop : ends[size - 1]].strip()
            next_continues = place + size < len(ids) and self.continues_word[ids[place + size]]
            if (next_continues or not is_whole) and _is_one_word(mark.surface, text[stop:]):
                continue
            if not is_whole:
                joined = _plain(text[: ends[size - 1]])
                raise InputError(
                    f"document {document} of the tokens: the vocabulary joins the end of the mark "
                    f"'{mark.text}' with what follows it ('{joined}'); write a space or a line end "
                    "behind the marks, or choose a tokenizer that parts them (wordpiece, "
                    "characters)"
                )
            return size, mark.speaker
        return None


class Turn(NamedTuple):
    """What one speaker says: tokens ``[start, stop)`` of the document, without the mark."""

    speaker: int
    start: int
    stop: int


_TurnsOf: TypeAlias = Callable[[int], NDArray[np.int64]]


@dataclass(frozen=True)
class Dialogues:
    """The layout of one vocabulary."""

    marks: Marks
    fake_probability: float

    def cut(self, material: Material) -> Cut:
        """Three turns each, of at most ``length`` tokens together, specials included.

        Left out are tokens of turns that are in no three or behind the end of a cut one; those of a
        turn that a stranger replaces are not counted.

        Raises:
            InputError: a document does not begin with the mark of a speaker, or a token holds the
                end of one and more.
        """
        store = material.store
        turns_of: _TurnsOf = lru_cache(maxsize=_CACHED)(partial(self.turns, store))
        ids: list[int] = []
        threes: list[list[Turn]] = []
        left_out = 0
        for document in material.documents:
            turns = turns_of(document)
            left_out += int((turns[:, 2] - turns[:, 1]).sum())
            for index, three in enumerate(_threes(material, document, turns)):
                ids.append(sequence_id(document, index))
                threes.append(three)
        sequences = np.array(ids, dtype=np.uint64)
        keys = material.keys("dialogues", sequences)
        fake = uniform(keys, 0, _IS_FAKE) < self.fake_probability
        fake &= store.num_documents > 1
        replaced = integers(keys, 0, _WHICH, TURNS)
        room = material.room(TURNS)
        pieces: list[_Span] = []
        for index, (sequence, three) in enumerate(zip(ids, threes, strict=True)):
            document, which = document_of(sequence), int(replaced[index])
            real = [(document, turn.start, turn.stop) for turn in three]
            shown = _fitted(real, room)
            if fake[index]:
                stranger = _stranger(store, document, keys[index], turns_of)
                mixed = [stranger if place == which else span for place, span in enumerate(real)]
                mixed = _fitted(mixed, room)
                fake[index] = not _are_equal(store, mixed[which], shown[which])
                shown = mixed if fake[index] else shown
            for place, (own, (_, start, stop)) in enumerate(zip(real, shown, strict=True)):
                is_replaced = fake[index] and place == which
                left_out -= own[2] - own[1] if is_replaced else stop - start
            pieces += shown
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
            left_out=left_out,
        )

    def turns(self, store: TokenStore, document: int) -> NDArray[np.int64]:
        """The turns of a document ``[turns, 3]``, as :class:`Turn`; those without words left out.

        Raises:
            InputError: it does not begin with the mark of a speaker, or a token holds the end of
                one and more.
        """
        ids = store.ids(document)
        tokens = ids.tolist()
        starts = np.cumsum([0, *store.sentence_lengths(document)]).tolist()
        begun = [
            (start, *found)
            for start in starts[:-1]
            if (found := self.marks.find(tokens, start, document))
        ]
        if tokens and (not begun or begun[0][0] > 0):
            raise InputError(
                f"document {document} of the tokens does not begin with the mark of a speaker; "
                "name the marks of your dialogues in layout.speakers, and give a document a "
                "dialogue (corpus.form)"
            )
        stops = [*(start for start, *_ in begun), len(tokens)][1:]
        is_word = ~self.marks.blank[ids]
        found_turns = [
            Turn(speaker, start + size, stop)
            for (start, size, speaker), stop in zip(begun, stops, strict=True)
            if is_word[start + size : stop].any()
        ]
        return np.array(found_turns, dtype=np.int64).reshape(-1, 3)


def surfaces(vocabulary: Vocabulary) -> list[bytes]:
    """The text of each token ``[size]`` in UTF-8, or some bytes of it; nothing of an unknown one.

    Of word pieces it is ``ing`` for ``##ing``, and no spaces are between words.
    """
    pieces = vocabulary.tokens(range(vocabulary.size))
    letters: dict[str, bytes] = {}
    prefix = ""
    if not isinstance(vocabulary.model, SentencePieceModel):
        plain = json.loads(vocabulary.tokenizer.to_str())
        prefix = plain["model"].get("continuing_subword_prefix") or ""
        if '"ByteLevel"' in json.dumps(plain["pre_tokenizer"]):
            # Imported here, since compiled code takes its time.
            from preprocessing.tokenization.byte_level import byte_alphabet

            letters = {letter: bytes([byte]) for byte, letter in enumerate(byte_alphabet())}

    def written(piece: str) -> bytes:
        if letters:
            return b"".join(letters.get(letter, letter.encode()) for letter in piece)
        if byte := _BYTE_PIECE.fullmatch(piece):
            return bytes([int(byte[1], 16)])
        return piece.replace(SPACE, " ").encode()

    table = [
        written(piece.removeprefix(prefix) if continues else piece)
        for piece, continues in zip(pieces, vocabulary.continues_word.tolist(), strict=True)
    ]
    if vocabulary.unknown_id is not None:
        table[vocabulary.unknown_id] = b"\0"
    return table


def _plain(text: bytes) -> str:
    return text.decode("utf-8", errors="ignore")


def _is_one_word(before: bytes, behind: bytes) -> bool:
    """Whether letters or digits meet that make up words; each ideograph is a word by itself.

    >>> [_is_one_word(b"Q", text.encode()) for text in ("ing", ": yes", "几点")]
    [True, False, False]
    """
    return all(
        letter.isalnum() and unicodedata.east_asian_width(letter) != "W"
        for letter in (_plain(before)[-1:], _plain(behind)[:1])
    )


def _threes(material: Material, document: int, turns: NDArray[np.int64]) -> list[list[Turn]]:
    """Turns that follow each other, by both speakers."""
    key = material.keys("dialogues of document", np.array([document]))
    place = int(integers(key, 0, _OFFSET, max(1, min(TURNS, len(turns) - TURNS + 1)))[0])
    threes = []
    while place + TURNS <= len(turns):
        three = [Turn(*turn) for turn in turns[place : place + TURNS].tolist()]
        if len({turn.speaker for turn in three}) > 1:
            threes.append(three)
            place += TURNS
        else:
            place += 1
    return threes


def _stranger(store: TokenStore, document: int, key: np.uint64, turns_of: _TurnsOf) -> _Span:
    """A turn of another document; without a token where that one has no words."""
    one = np.array([key], dtype=np.uint64)
    partner = int(integers(one, 0, _PARTNER, store.num_documents - 1)[0])
    partner += partner >= document
    turns = turns_of(partner)
    if not len(turns):
        return partner, 0, 0
    chosen = Turn(*turns[int(integers(one, 0, _PARTNER_TURN, len(turns))[0])].tolist())
    return partner, chosen.start, chosen.stop


def _are_equal(store: TokenStore, stranger: _Span, own: _Span) -> bool:
    """Whether nothing is replaced: the tokens are the same, or there are none."""
    first, second = (store.ids(document)[start:stop] for document, start, stop in (stranger, own))
    return len(first) == 0 or np.array_equal(first, second)


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
