import numpy as np
import pytest
from hypothesis import given, settings
from tokenizers import Tokenizer
from vocabularies import KINDS, TEXTS, assert_equal, column, encode, reference_of

from preprocessing.tokenization.choice import encoder_of
from preprocessing.tokenization.chunks import ChunkEncoder
from preprocessing.tokenization.dictionary import Dictionary


@pytest.fixture(scope="module", params=list(KINDS))
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return KINDS[request.param]()


def test_encoder_is_a_fast_one(tokenizer: Tokenizer) -> None:
    assert isinstance(encoder_of(tokenizer), ChunkEncoder)


def test_ids_of_any_text_are_the_librarys(tokenizer: Tokenizer) -> None:
    encoder, reference = encoder_of(tokenizer), reference_of(tokenizer)
    small = encoder_of(tokenizer)
    small.dictionary = Dictionary(limit=3)

    @settings(max_examples=200)
    @given(TEXTS)
    def check(texts: list[str]) -> None:
        expected = encode(reference, texts)
        library = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        assert expected.ids.tolist() == [index for own in library for index in own.ids]
        assert np.diff(expected.offsets).tolist() == [len(own.ids) for own in library]
        assert_equal(encode(encoder, texts), expected)
        assert_equal(encode(small, texts), expected)

    check()


def every_point(step: int) -> list[str]:
    """Each code point between letters, digits, marks of punctuation, white space and by itself."""
    points = [*range(0, 0xD800, step), *range(0xE000, 0x110000, step)]
    around = ("a{}b", " {}'s", "é{}\u0301")
    return [
        "".join(pattern.format(chr(point)) for point in points[start : start + 4096])
        for pattern in around
        for start in range(0, len(points), 4096)
    ]


def check_library(tokenizer: Tokenizer, texts: list[str]) -> None:
    own = column(texts)
    given = encoder_of(tokenizer).encode(own, np.zeros(0, np.int64))
    for start in range(0, len(texts), 64):
        library = tokenizer.encode_batch_fast(texts[start : start + 64], add_special_tokens=False)
        for index, expected in enumerate(library, start):
            ids = given.ids[given.offsets[index] : given.offsets[index + 1]]
            assert np.array_equal(ids, np.array(expected.ids, ids.dtype))


def test_ids_of_many_code_points_are_the_librarys(tokenizer: Tokenizer) -> None:
    check_library(tokenizer, every_point(step=241))


@pytest.mark.slow
def test_ids_of_every_code_point_are_the_librarys(tokenizer: Tokenizer) -> None:
    check_library(tokenizer, every_point(step=1))
