"""Three turns of a dialogue: their roles, their labels, and who takes whose place."""

import itertools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import ListStore, prepare_config, run_stages, write_documents
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import ConfigError
from preprocessing.layouts import DialoguesConfig
from preprocessing.layouts.base import FRAMES, Cut, Material, document_of
from preprocessing.layouts.dialogues import (
    FAKE,
    QUERY,
    REAL,
    RESPONSE,
    Dialogues,
    Marks,
    SpeakerMark,
    _fitted,
)
from preprocessing.rows import RowSet
from preprocessing.settings import Preparation
from preprocessing.storage import InputError
from preprocessing.tokens import TokenStore
from preprocessing.vocabulary import Vocabulary

ASK, ANSWER = 1, 2
SURFACES = [f"{token};".encode() for token in range(5000)]
MARKS = Marks(
    [SpeakerMark("1;", SURFACES[ASK], 0), SpeakerMark("2;", SURFACES[ANSWER], 1)],
    SURFACES,
    np.zeros(len(SURFACES), dtype=bool),
)
STAGES = ("ingest", "deduplicate", "tokenizer", "tokenize")
Turns = list[tuple[int, list[list[int]]]]


def dialogue(turns: Turns) -> list[list[int]]:
    """The sentences of turns, the mark of the speaker before the first one of each."""
    return [
        [mark, *sentence] if number == 0 else sentence
        for mark, sentences in turns
        for number, sentence in enumerate(sentences)
    ]


def cut_of(
    documents: list[list[list[int]]],
    *,
    fake: float = 0.0,
    length: int = 40,
    copy: int = 0,
    own: range | None = None,
) -> Cut:
    store: Any = ListStore(documents)
    own = range(len(documents)) if own is None else own
    material = Material(store, own, length, FRAMES["cls_sep"], seed=1, copy=copy)
    return Dialogues(MARKS, fake).cut(material)


def turns_of(documents: list[list[list[int]]], cut: Cut) -> list[list[list[int]]]:
    store = ListStore(documents)
    spans = zip(cut.pieces.documents, cut.pieces.starts, cut.pieces.stops, strict=True)
    flat = [store.ids(int(document))[start:stop].tolist() for document, start, stop in spans]
    return [flat[place : place + 3] for place in range(0, len(flat), 3)]


@pytest.mark.parametrize(
    ("speakers", "roles"),
    [
        ([ASK, ANSWER, ASK], [QUERY, RESPONSE, QUERY]),
        ([ANSWER, ASK, ANSWER], [QUERY, RESPONSE, QUERY]),
        ([ASK, ANSWER, ANSWER], [QUERY, RESPONSE, RESPONSE]),
        ([ASK, ASK, ANSWER], [QUERY, QUERY, RESPONSE]),
    ],
)
def test_roles_are_those_of_the_paper(speakers: list[int], roles: list[int]) -> None:
    documents = [dialogue([(mark, [[10 + n], [20 + n]]) for n, mark in enumerate(speakers)])]
    cut = cut_of(documents)
    assert turns_of(documents, cut) == [[[10, 20], [11, 21], [12, 22]]]
    assert cut.segments is not None
    assert cut.segments.tolist() == roles
    assert cut.labels.tolist() == [REAL]
    assert cut.lengths.tolist() == [10]


def test_three_turns_by_one_speaker_are_passed_over() -> None:
    documents = [dialogue([(ASK, [[10]]), (ASK, [[11]]), (ASK, [[12]]), (ANSWER, [[13]])])]
    found = [turns_of(documents, cut_of(documents, copy=copy)) for copy in range(8)]
    assert all(turns == [[[11], [12], [13]]] for turns in found)
    silent = [dialogue([(ASK, [[10]])] * 5), dialogue([(ASK, [[10]]), (ANSWER, [[11]])]), []]
    assert len(cut_of(silent).ids) == 0


def test_turns_without_words_are_left_out() -> None:
    documents = [dialogue([(ASK, [[10]]), (ANSWER, [[]]), (ANSWER, [[11]]), (ASK, [[12]])])]
    assert turns_of(documents, cut_of(documents)) == [[[10], [11], [12]]]


def test_copies_begin_at_other_turns_and_show_none_twice() -> None:
    turns: Turns = [((ASK, ANSWER)[n % 2], [[10 + n]]) for n in range(8)]
    documents = [dialogue(turns)]
    begun = set()
    for copy in range(30):
        threes = turns_of(documents, cut_of(documents, copy=copy))
        flat = [token for three in threes for turn in three for token in turn]
        assert flat == list(range(flat[0], flat[0] + 6))
        begun.add(flat[0])
    assert begun == {10, 11, 12}


def test_fakes_have_one_turn_of_another_document() -> None:
    documents = [
        dialogue([((ASK, ANSWER)[n % 2], [[100 * d + 10 + n] * (n + 1)]) for n in range(3)])
        for d in range(40)
    ]
    plain = turns_of(documents, cut_of(documents))
    known = [turn for three in plain for turn in three]
    labels, places = [], []
    for copy in range(30):
        cut = cut_of(documents, fake=0.3, copy=copy)
        labels += cut.labels.tolist()
        for number, three in enumerate(turns_of(documents, cut)):
            assert document_of(int(cut.ids[number])) == number
            others = [place for place in range(3) if three[place] != plain[number][place]]
            assert len(others) == (cut.labels[number] == FAKE)
            for place in others:
                places.append(place)
                assert three[place] in known
                assert cut.pieces.documents[3 * number + place] != number
        assert cut.segments is not None
        assert cut.segments.tolist() == [QUERY, RESPONSE, QUERY] * 40, "a stranger plays the role"
    assert abs(np.mean(labels) - 0.3) < 4 * math.sqrt(0.3 * 0.7 / len(labels))
    shares = np.bincount(places, minlength=3) / len(places)
    assert np.abs(shares - 1 / 3).max() < 4 * math.sqrt(2 / 9 / len(places))


def test_a_lonely_dialogue_is_real() -> None:
    documents = [dialogue([(ASK, [[10]]), (ANSWER, [[11]]), (ASK, [[12]])])]
    assert cut_of(documents, fake=1.0).labels.tolist() == [REAL]
    assert cut_of([*documents, [[ASK]]], fake=1.0).labels.tolist() == [REAL], "of one without words"


def test_a_stranger_that_says_the_same_makes_no_fake() -> None:
    documents = [
        dialogue([(ASK, [[10 + document]]), (ANSWER, [[7]]), (ASK, [[7]])]) for document in range(9)
    ]
    plain = turns_of(documents, cut_of(documents))
    kept = 0
    for copy in range(20):
        cut = cut_of(documents, fake=1.0, copy=copy)
        for three, own, label in zip(turns_of(documents, cut), plain, cut.labels, strict=True):
            assert (label == FAKE) == (three != own)
            kept += label == REAL
        real = np.repeat(cut.labels == REAL, 3)
        of_rows = np.repeat([document_of(int(one)) for one in cut.ids], 3)
        assert (cut.pieces.documents == of_rows)[real].all()
    # The first turn is always another one; of the last two a stranger is one of three turns.
    share = 2 / 3 * 2 / 3
    assert abs(kept / 180 - share) < 4 * math.sqrt(share * (1 - share) / 180)


def test_a_stranger_that_reads_the_same_once_it_is_cut_makes_no_fake() -> None:
    documents = [
        dialogue([(speaker, [[7] * size]) for speaker in (ASK, ANSWER, ASK)]) for size in (9, 30)
    ]
    assert cut_of(documents, fake=1.0, length=13).labels.tolist() == [REAL, REAL]
    assert cut_of(documents, fake=1.0, length=100).labels.tolist() == [FAKE, FAKE]


def test_tokens_in_no_sequence_are_counted() -> None:
    turns: Turns = [((ASK, ANSWER)[n % 2], [[10] * (n + 1)]) for n in range(3)]
    assert cut_of([dialogue(turns)]).left_out == 0
    assert cut_of([dialogue(turns)], length=9).left_out == 1, "5 of 6 have room"
    assert cut_of([dialogue(turns[:2])]).left_out == 3
    assert cut_of([dialogue([(ASK, [[10, 11]])] * 4)]).left_out == 8, "all by one speaker"
    documents = [dialogue([((ASK, ANSWER)[n % 2], [[10 + n] * 2]) for n in range(4)]), []]
    assert {cut_of(documents, copy=copy).left_out for copy in range(5)} == {2}
    documents = [
        dialogue([((ASK, ANSWER)[n % 2], [[100 * d + n] * 5]) for n in range(3)]) for d in (1, 2)
    ]
    cut = cut_of(documents, fake=1.0, length=13)
    assert cut.labels.tolist() == [FAKE, FAKE]
    assert cut.left_out == 2 * (2 + 2), "the replaced turn's tokens have given way, not been cut"


def test_each_document_is_read_once_however_many_strangers_it_lends() -> None:
    class Counting(ListStore):
        asked = 0

        def sentence_lengths(self, document: int) -> Any:
            self.asked += 1
            return super().sentence_lengths(document)

    documents = [
        dialogue([((ASK, ANSWER)[n % 2], [[100 * d + n]]) for n in range(90)]) for d in range(3)
    ]
    store: Any = Counting(documents)
    material = Material(store, range(3), 40, FRAMES["cls_sep"], seed=1, copy=0)
    cut = Dialogues(MARKS, 1.0).cut(material)
    assert (cut.labels == FAKE).sum() > 80
    assert store.asked == 3


def test_dialogues_do_not_depend_on_who_cuts_them() -> None:
    documents = [
        dialogue([((ASK, ANSWER)[n % 2], [[100 * d + 10 + n]]) for n in range(7)]) for d in range(9)
    ]
    whole = cut_of(documents, fake=0.5)
    parts = [cut_of(documents, fake=0.5, own=own) for own in (range(4), range(4, 9))]
    assert whole.labels.tolist() == [one for part in parts for one in part.labels.tolist()]
    joined = [turns for part in parts for turns in turns_of(documents, part)]
    assert turns_of(documents, whole) == joined


@given(
    lengths=st.lists(st.integers(1, 60), min_size=3, max_size=3),
    room=st.integers(3, 90),
)
def test_the_longest_turns_are_cut_until_all_fit(lengths: list[int], room: int) -> None:
    kept = [stop - start for _, start, stop in _fitted([(0, 5, 5 + n) for n in lengths], room)]
    assert sum(kept) == min(sum(lengths), room)
    level = max(kept)
    assert all(own == was or own >= level - 1 for own, was in zip(kept, lengths, strict=True))


# -- with real vocabularies ----------------------------------------------------------------------

TALKS = [
    "甲：今天去哪里？去北京吗？\n乙：不去。\n甲：好的。",
    "甲：几点了？\n乙：三点。\n乙：不，四点了。",
    "甲：你好。\n甲：有人吗？\n乙：有。",
]
RAW = TALKS + [
    f"甲：第{tens}十{ones}天怎么样？\n乙：很好。\n甲：那就好。"
    for tens in "二三四五六"
    for ones in "一二三四五六七八九"
]


def prepare(folder: Path, documents: list[str], **examples: Any) -> Preparation:
    write_documents(folder / "raw" / "a.txt", documents)
    rows = {
        "length": 40,
        "layout": {"kind": "dialogues", "speakers": ["甲：", "乙："], "fake_probability": 0.0},
        "corruption": {"kind": "units", "level": "tokens"},
    }
    return prepare_config(
        folder,
        tokenizer={"kind": "wordpiece", "vocab_size": 150},
        examples={"talks": {**rows, **examples}},
    )


def shown(preparation: Preparation) -> dict[str, list[tuple[str, int]]]:
    """The tokens of all sequences with their segments, by the sequence's text, before masking."""
    vocabulary = Vocabulary.load(preparation.tokenizer_directory)
    rows = RowSet(preparation.examples_directory("talks"), "train", seed=preparation.seed)
    found = {}
    for row in range(rows.num_rows[0]):
        sequences = rows.read(0, np.array([row])).sequences
        pieces = vocabulary.tokens(sequences.tokens)
        text = "".join(piece.removeprefix("##") for piece in pieces)
        found[text] = list(zip(pieces, sequences.segments.tolist(), strict=True))
    return found


@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_rows_hold_roles(mode: str, tmp_path: Path) -> None:
    preparation = prepare(tmp_path, RAW, mode=mode)
    run_stages(preparation, (*STAGES, "examples"))
    rows = RowSet(preparation.examples_directory("talks"), "train", seed=preparation.seed)
    numbers = np.arange(rows.num_rows[0])
    arrays = rows.arrays(preparation.examples["talks"].corruption, numbers, epoch=0)
    separator = rows.special.separator
    for ids, segments, inside in zip(
        arrays.ids, arrays.segment_ids, arrays.sequence_ids > 0, strict=True
    ):
        turn = np.concatenate([[0], np.cumsum(ids[inside] == separator)[:-1]])
        roles = segments[inside][np.searchsorted(turn, range(3))]
        assert roles.tolist() in ([2, 3, 2], [2, 3, 3], [2, 2, 3])
        assert (segments[inside] == roles[turn]).all()
        assert not segments[~inside].any()
    labels = arrays.targets["dialogue_response"].labels
    assert (labels == REAL).sum() == len(numbers)
    assert arrays.targets["masked_lm"].labels.max() >= 0
    if mode == "dynamic":
        pairs = {
            text: "".join(str(segment) for _, segment in tokens)
            for text, tokens in shown(preparation).items()
        }
        known = {"[CLS]几点了？[SEP]三点。[SEP]不，四点了。[SEP]": "2" * 6 + "3" * 4 + "3" * 7}
        known["[CLS]你好。[SEP]有人吗？[SEP]有。[SEP]"] = "2" * 5 + "2" * 5 + "3" * 3
        assert known.items() <= pairs.items()
        assert not any("甲" in text or "乙" in text for text in pairs)


def test_documents_without_marks_are_refused(tmp_path: Path) -> None:
    preparation = prepare(tmp_path, [*RAW, "没有人说话。\n甲：有。"])
    run_stages(preparation, STAGES)
    vocabulary = Vocabulary.load(preparation.tokenizer_directory)
    store = TokenStore(preparation.tokens_directory, "train")
    bound = preparation.examples["talks"].layout.bind(vocabulary)
    material = Material(store, range(store.num_documents), 40, FRAMES["cls_sep"], 1, 0)
    with pytest.raises(InputError, match=r"does not begin with the mark.*layout\.speakers"):
        bound.cut(material)
    for speakers in (("甲：", "甲："), ("甲：", "☃")):
        with pytest.raises(InputError, match="cannot tell the mark"):
            DialoguesConfig(kind="dialogues", speakers=speakers).bind(vocabulary)
    several = DialoguesConfig(kind="dialogues", speakers=("甲", ("乙", "乙：")))
    bound_several = several.bind(vocabulary)
    assert [mark.text for mark in bound_several.marks.marks] == ["乙：", "甲", "乙"]


def test_static_rows_are_the_dynamic_ones(tmp_path: Path) -> None:
    layout = {"kind": "dialogues", "speakers": ["甲：", "乙："], "fake_probability": 0.5}
    made = []
    for mode in ("static", "dynamic"):
        preparation = prepare(tmp_path / mode, RAW, layout=layout, mode=mode, pack=True)
        run_stages(preparation, (*STAGES, "examples"))
        rows = RowSet(preparation.examples_directory("talks"), "train", seed=preparation.seed)
        scheme = preparation.examples["talks"].corruption
        made.append(rows.arrays(scheme, np.arange(rows.num_rows[0]), epoch=0))
    one, other = (arrays.named() for arrays in made)
    assert one.keys() == other.keys()
    for name, values in one.items():
        assert (values == other[name]).all(), name
    labels = made[0].targets["dialogue_response"].labels
    assert (labels == REAL).sum() > 5
    assert (labels == FAKE).sum() > 5


QUOTED = [re.sub("：(.*)", r"：“\1”", document) for document in RAW[len(TALKS) :]]


def cut_with(folder: Path, documents: list[str], tokenizer: Any, speakers: Any) -> list[list[str]]:
    """The tokens of the turns of each three, without fakes."""
    write_documents(folder / "raw" / "a.txt", documents)
    preparation = prepare_config(folder, tokenizer=tokenizer)
    run_stages(preparation, STAGES)
    vocabulary = Vocabulary.load(preparation.tokenizer_directory)
    store = TokenStore(preparation.tokens_directory, "train")
    layout = DialoguesConfig(kind="dialogues", speakers=speakers, fake_probability=0.0)
    material = Material(store, range(store.num_documents), 100, FRAMES["cls_sep"], 1, 0)
    pieces = layout.bind(vocabulary).cut(material).pieces
    spans = zip(pieces.documents, pieces.starts, pieces.stops, strict=True)
    return [vocabulary.tokens(store.ids(int(one))[start:stop]) for one, start, stop in spans]


FUSING = {"byte_level_bpe": 320, "unigram": 45, "sentencepiece_bpe": 60}
KINDS = pytest.mark.parametrize(("kind", "size"), FUSING.items())


@KINDS
def test_marks_joined_with_what_follows_are_refused(kind: str, size: int, tmp_path: Path) -> None:
    message = r"document \d+ .* joins the end of the mark '[甲乙]：'.*write a space"
    with pytest.raises(InputError, match=message):
        cut_with(tmp_path, QUOTED, {"kind": kind, "vocab_size": size}, ("甲：", "乙："))


@KINDS
def test_a_space_behind_them_parts_marks(kind: str, size: int, tmp_path: Path) -> None:
    spaced = [document.replace("：", "： ") for document in QUOTED]
    turns = cut_with(tmp_path, spaced, {"kind": kind, "vocab_size": size}, ("甲：", "乙："))
    assert len(turns) >= 3 * 30
    assert len({tuple(turn) for turn in turns[1::3]}) == 1, "很好"


def test_word_pieces_part_marks(tmp_path: Path) -> None:
    turns = cut_with(tmp_path, QUOTED, {"kind": "wordpiece", "vocab_size": 100}, ("甲：", "乙："))
    assert {"".join(turn) for turn in turns[1::3]} == {"“很好。”"}
    assert all(turn[0] == "“" for turn in turns)


@pytest.mark.parametrize("kind", ["wordpiece", "byte_level_bpe"])
def test_a_mark_is_a_whole_word(kind: str, tmp_path: Path) -> None:
    """Of either case, for a vocabulary that has one: Q is no mark in Qing, nor A in Also."""
    documents = [
        f"Q no {word} here.\nQing went {word}.\nA also {word}.\nAlso {word}.\nq: yes {word}."
        for word in map("".join, itertools.permutations("abcde", 2))
    ]
    turns = cut_with(tmp_path, documents, {"kind": kind, "vocab_size": 290}, (("Q", "q:"), "A"))
    texts = ["".join(turn).replace("##", "").replace("Ġ", "").lower() for turn in turns]
    assert all(text.startswith("no") and "qingwent" in text for text in texts[::3])
    assert all(text.startswith("also") and text.count("also") == 2 for text in texts[1::3])
    assert all("yes" in text for text in texts[2::3])
    assert len(texts) >= 3 * 10


def test_corruptions_that_move_tokens_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'dialogues' gives tokens segments.*'causal'"):
        prepare(tmp_path, RAW, corruption={"kind": "causal"})
