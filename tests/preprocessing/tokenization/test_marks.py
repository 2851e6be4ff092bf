"""Where marks lie among the tokens, and which tokens begin a word, by hand."""

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from vocabularies import SPECIAL, reference_of, settled

from preprocessing.texts import Texts
from preprocessing.tokenization.byte_level import byte_alphabet
from preprocessing.tokenization.choice import encoder_of


def words(*pieces: str) -> Tokenizer:
    vocabulary = {piece: index for index, piece in enumerate([*SPECIAL, *pieces])}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return settled(tokenizer)


def merges(*pairs: tuple[str, str]) -> Tokenizer:
    pieces = [*SPECIAL, *byte_alphabet(), *(a + b for a, b in pairs)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(pairs)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return settled(tokenizer)


@pytest.mark.parametrize("make", [encoder_of, reference_of], ids=["fast", "reference"])
def test_marks_of_wordpiece(make) -> None:
    #          0123456789012345 and the second text begins at 16
    texts = ["un do. Undoing ,", "do"]
    tokenizer = words("un", "##do", "do", "##ing", ".", ",")
    own = Texts.of(pa.array(texts))
    places = [0, 1, 2, 3, 5, 6, 7, 9, 10, 11, 14, 15, 16, 17, 18]
    encoded = make(tokenizer).encode(own, np.array(places))
    pieces = [tokenizer.id_to_token(i) for i in encoded.ids.tolist()]
    assert pieces == ["un", "do", ".", "un", "##do", "##ing", ",", "do"]
    assert encoded.offsets.tolist() == [0, 7, 8]
    assert encoded.word_starts.tolist() == [True] * 4 + [False] * 2 + [True] * 2
    assert dict(zip(places, encoded.marks.tolist(), strict=True)) == {
        0: 0, 1: 1, 2: 1, 3: 1, 5: 2, 6: 3, 7: 3, 9: 4, 10: 5,
        11: 5, 14: 6, 15: 6, 16: 7, 17: 8, 18: 8,
    }  # fmt: skip
    inexact = [place for place, exact in zip(places, encoded.exact, strict=True) if not exact]
    assert inexact == [1, 10, 17]


@pytest.mark.parametrize("make", [encoder_of, reference_of], ids=["fast", "reference"])
def test_marks_of_byte_level(make) -> None:
    """The space before a word is part of its token, which begins after it all the same."""
    tokenizer = merges(("Ġ", "d"), ("Ġd", "o"), ("o", "n"), ("ä", "½"))
    own = Texts.of(pa.array(["do  don\n\n 你a"]))
    # bytes:                  01234567 8 9 10..12 13
    encoded = make(tokenizer).encode(own, np.arange(15)[[0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 13, 14]])
    pieces = [tokenizer.id_to_token(i) for i in encoded.ids.tolist()]
    assert pieces == ["d", "o", "Ġ", "Ġdo", "n", "Ċ", "Ċ", "Ġ", "ä½", "ł", "a"]
    begins = [True, False, True, True, False, True, False, True, False, False, False]
    assert encoded.word_starts.tolist() == begins
    #                                 0  1  2  3  4  5  6  7  9  10  13  14
    assert encoded.marks.tolist() == [0, 1, 2, 3, 3, 4, 4, 5, 7, 8, 10, 11]
    assert encoded.exact.tolist() == [True] * 5 + [False] + [True] * 6


def test_contractions_and_white_space_split_as_gpt2_does() -> None:
    tokenizer = merges()
    text = "I'll  we're 'sam's  \n x1\u00a0\u3000y  "
    encoded = encoder_of(tokenizer).encode(Texts.of(pa.array([text])), np.zeros(0, np.int64))
    starts = np.flatnonzero(encoded.word_starts).tolist()
    raw = text.encode()
    parts = [raw[a:b].decode() for a, b in zip(starts, [*starts[1:], len(raw)], strict=True)]
    assert parts == [
        "I", "'ll", " ", " we", "'re", " '", "sam", "'s", "  \n", " x", "1", "\u00a0", "\u3000",
        "y", "  ",
    ]  # fmt: skip
