import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vocabularies import assert_equal, column, encode, reference_of, wordpiece

from preprocessing.tokenization.choice import encoder_of
from preprocessing.tokenization.chunks import ChunkEncoder
from preprocessing.tokenization.dictionary import LONGEST_KEY, TEXT_END, Dictionary


def look_up(
    dictionary: Dictionary, chunks: list[bytes | None], hashes: list[int]
) -> tuple[int, list[int], list[int]]:
    """Entries found, and numbers of the chunks that are new; None is the end of a text."""
    lengths = np.array([TEXT_END if c is None else len(c) for c in chunks], np.int32)
    starts = np.cumsum([0, *np.maximum(lengths, 0)])[:-1].astype(np.int64)
    data = np.frombuffer(b"".join(c or b"" for c in chunks), np.uint8)
    found = np.full(len(chunks), -9, np.int32)
    done, new = dictionary.look_up(data, starts, lengths, np.array(hashes, np.uint64), found)
    return done, found[:done].tolist(), new.tolist()


def test_equal_chunks_share_an_entry_whatever_their_hashes_say_of_others() -> None:
    dictionary = Dictionary(limit=8)
    same = 0xABCDEF0000000001
    chunks = [b"a", b"b", None, b"a", b"ab", b"b", b"ab"]
    assert look_up(dictionary, chunks, [same] * 7) == (7, [0, 1, -1, 0, 2, 1, 2], [0, 1, 4])
    assert look_up(dictionary, [b"ab", b"c"], [same] * 2) == (2, [2, 3], [1])


def test_full_dictionary_stops_before_the_chunk_it_has_no_room_for() -> None:
    dictionary = Dictionary(limit=2)
    assert look_up(dictionary, [b"a", b"b", b"a", b"c", b"a"], [1, 2, 1, 3, 1]) == (
        3,
        [0, 1, 0],
        [0, 1],
    )
    dictionary.clear()
    assert look_up(dictionary, [b"c", b"a"], [3, 1]) == (2, [0, 1], [0, 1])


def test_long_chunks_are_new_every_time() -> None:
    dictionary = Dictionary(limit=8)
    longest, longer = b"x" * LONGEST_KEY, b"x" * (LONGEST_KEY + 1)
    chunks: list[bytes | None] = [longest, longer, longest, longer]
    assert look_up(dictionary, chunks, [7, 9, 7, 9]) == (4, [0, 1, 0, 2], [0, 1, 3])


@given(st.lists(st.binary(min_size=1, max_size=3), max_size=200), st.integers(1, 20))
def test_dictionary_is_a_dictionary(chunks: list[bytes], limit: int) -> None:
    dictionary = Dictionary(limit=limit)
    known: dict[bytes, int] = {}
    rest = list(chunks)
    while rest:
        done, found, _ = look_up(dictionary, list(rest), [hash(c) % 2**64 for c in rest])
        for chunk, entry in zip(rest, found, strict=False):
            assert known.setdefault(chunk, len(known)) == entry
        if done < len(rest):
            assert len(known) == limit
            assert rest[done] not in known
            dictionary.clear()
            known = {}
        rest = rest[done:]


def test_more_words_than_the_dictionary_holds() -> None:
    tokenizer = wordpiece(lowercase=True)
    texts = [" ".join(f"word{i * 7 % 1000}x{i % 13}" for i in range(5000))] * 2
    encoder = encoder_of(tokenizer)
    encoder.dictionary = Dictionary(limit=100)
    assert_equal(encode(encoder, texts), encode(reference_of(tokenizer), texts))


def test_memory_does_not_grow_with_new_words() -> None:
    """Some 400,000 words, three times as many as the dictionary holds, a fifth of them long."""
    tokenizer = wordpiece(lowercase=True)
    encoder = encoder_of(tokenizer)
    process = psutil.Process()

    def feed(first: int) -> int:
        for start in range(first, first + 200_000, 20_000):
            words = [f"w{i:x}" * (5 if i % 5 == 0 else 1) for i in range(start, start + 20_000)]
            encoder.encode(column([" ".join(words)]), np.zeros(0, np.int64))
        return int(process.memory_full_info().uss)

    feed(0)
    before = feed(200_000)
    after = feed(400_000)
    assert after - before < 4 * 2**20


def test_very_long_word_leaves_nothing_behind() -> None:
    tokenizer = wordpiece(lowercase=False, longest=3_000_000)
    encoder = encoder_of(tokenizer)
    assert isinstance(encoder, ChunkEncoder)
    small = len(encoder.dictionary.pool.ids)
    text = "ab" * 1_000_000
    encoded = encoder.encode(column([text]), np.array([0], np.int64))
    assert 0 < len(encoded.ids) <= len(text)
    encoder.dictionary.clear()
    assert len(encoder.dictionary.pool.ids) == small


@pytest.mark.parametrize("texts", [[], [""], ["", ""], [" ", "\n"], ["", "a", ""]])
def test_texts_without_anything(texts: list[str]) -> None:
    tokenizer = wordpiece(lowercase=True)
    assert_equal(encode(encoder_of(tokenizer), texts), encode(reference_of(tokenizer), texts))
