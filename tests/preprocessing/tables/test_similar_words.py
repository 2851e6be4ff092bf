"""Similar words: from a file, and from what stands beside them."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import numpy as np
import pytest
from corpora import prepare_config, run_stages, write_documents

from preprocessing.storage import InputError
from preprocessing.tables.base import Arrays
from preprocessing.tables.cooccurrence import (
    CooccurringSimilar,
    Words,
    count_neighbours,
    nearest_rows,
    read_texts,
    word_vectors,
)
from preprocessing.tables.similar import GivenSimilar, similar_arrays, word_hashes
from preprocessing.tokens import TokenStore
from preprocessing.vocabulary import Vocabulary

CLASSES = [
    ("cat dog cow hen fox", "eats drinks sleeps"),
    ("red green blue grey brown", "paint cloth ink"),
    ("one two three four five", "times plus minus"),
]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> tuple[Vocabulary, TokenStore]:
    """Documents in which the words of a class stand beside those that belong to it."""
    folder = tmp_path_factory.mktemp("similar")
    draw = random.Random(0)
    documents = []
    for _ in range(300):
        words = []
        for _ in range(12):
            members, neighbours = (part.split() for part in draw.choice(CLASSES))
            words += [draw.choice(members), draw.choice(neighbours), draw.choice(neighbours)]
        documents.append(" ".join(words) + ".")
    write_documents(folder / "raw" / "a.txt", documents)
    preparation = prepare_config(folder, tokenizer={"kind": "wordpiece", "vocab_size": 300})
    run_stages(preparation, names=("ingest", "deduplicate", "tokenizer", "tokenize"))
    vocabulary = Vocabulary.load(preparation.tokenizer_directory)
    return vocabulary, TokenStore(preparation.tokens_directory, "train")


def looked_up(arrays: Arrays, vocabulary: Vocabulary, word: str) -> list[str]:
    """The similar words of a word, as a corruption finds them."""
    (ids,) = vocabulary.encode([word])
    one = word_hashes(np.array(ids), np.array([0]), np.array([len(ids)]))[0]
    entry = int(np.searchsorted(arrays["similar_hashes"], one))
    if entry == len(arrays["similar_hashes"]) or arrays["similar_hashes"][entry] != one:
        return []
    own = arrays["similar_pieces"][slice(*arrays["similar_offsets"][entry : entry + 2])]
    return [vocabulary.decode(other) for other in own.reshape(-1, len(ids)).tolist()]


def built(table: CooccurringSimilar, vocabulary: Vocabulary, store: TokenStore) -> Arrays:
    counts = [table.count(vocabulary, store, documents) for documents in store.shard_ranges]
    assert len(counts) > 2
    return table.build(vocabulary, store, counts)


def test_worked_example() -> None:
    arrays = similar_arrays([((8,), [(9,), (10,)]), ((5, 6), [(7, 6)]), ((11,), [])])
    one, two = word_hashes(np.array([5, 6, 8]), np.array([0, 2]), np.array([2, 1]))
    order = [one, two] if one < two else [two, one]
    assert arrays["similar_hashes"].tolist() == order
    assert arrays["similar_offsets"].tolist() == [0, 2, 4]
    pieces = {int(one): [7, 6], int(two): [9, 10]}
    assert arrays["similar_pieces"].tolist() == pieces[int(order[0])] + pieces[int(order[1])]


def test_hashes_tell_orders_and_lengths_apart() -> None:
    ids = np.array([0, 0, 0, 7, 8, 8, 7])
    starts, lengths = np.array([0, 0, 0, 3, 5, 3, 4]), np.array([1, 2, 3, 2, 2, 1, 1])
    assert len(set(word_hashes(ids, starts, lengths).tolist())) == len(starts)


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_is_cut_by_the_vocabulary(tmp_path: Path, tokens, packed: bool) -> None:
    vocabulary, store = tokens
    text = "\ufeffcat\tdog\tcow\tcat\n\nred\tgreen plus\nlone\none \t two\ncat\then\n"
    path = tmp_path / ("words.tsv.gz" if packed else "words.tsv")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    table = GivenSimilar(kind="given", path=path)
    assert table.count(vocabulary, store, range(3)) == {}
    arrays = table.build(vocabulary, store, [{}, {}])
    assert tuple(arrays) == table.arrays()
    assert looked_up(arrays, vocabulary, "cat") == ["hen"], "the last line of a word counts"
    assert looked_up(arrays, vocabulary, "one") == ["two"]
    assert looked_up(arrays, vocabulary, "red") == [], "one piece is no two words"


def test_a_file_without_similar_words_is_refused(tmp_path: Path, tokens) -> None:
    vocabulary, store = tokens
    path = tmp_path / "words.tsv"
    path.write_text("cat dog\n")
    with pytest.raises(InputError, match="with tabs between them"):
        GivenSimilar(kind="given", path=path).build(vocabulary, store, [])
    path.write_bytes(b"cat\tdog\n\xff\tdog\n")
    with pytest.raises(InputError, match=r"words\.tsv:2: not UTF-8"):
        GivenSimilar(kind="given", path=path).build(vocabulary, store, [])
    path.unlink()
    with pytest.raises(InputError, match="cannot read"):
        GivenSimilar(kind="given", path=path).build(vocabulary, store, [])


def test_words_among_the_same_words_are_similar(tokens) -> None:
    vocabulary, store = tokens
    table = CooccurringSimilar(
        kind="cooccurring", num_words=40, num_contexts=20, window=1, num_similar=4, dimensions=8
    )
    arrays = built(table, vocabulary, store)
    assert tuple(arrays) == table.arrays()
    for members, _ in CLASSES:
        alike: dict[int, list[str]] = {}
        for word in members.split():
            alike.setdefault(len(vocabulary.encode([word])[0]), []).append(word)
        for words in alike.values():
            for word in words:
                others = looked_up(arrays, vocabulary, word)
                assert set(others[: len(words) - 1]) == {*words} - {word}, word
    again = built(table, vocabulary, store)
    assert all((again[name] == values).all() for name, values in arrays.items())


def test_words_are_counted_shard_by_shard_as_at_once(tokens) -> None:
    _, store = tokens
    whole, parts = Words.none(), Words.none()
    for text in read_texts(store, range(store.num_documents)):
        whole = whole.plus(Words.of(text))
    for documents in store.shard_ranges:
        for text in read_texts(store, documents):
            parts = parts.plus(Words.of(text))
    plain: dict[tuple[int, ...], int] = {}
    for document in range(store.num_documents):
        starts = np.flatnonzero(store.word_starts(document))[1:]
        for word in np.split(store.ids(document), starts):
            plain[tuple(word.tolist())] = plain.get(tuple(word.tolist()), 0) + 1
    for words in (whole, parts):
        assert dict(zip(words.words(), words.counts.tolist(), strict=True)) == plain
        assert (np.diff(words.hashes.astype(object)) > 0).all()
    most = whole.most_frequent(5)
    assert sorted(most.counts.tolist()) == sorted(plain.values())[-5:]
    piece = most.words()[0][0]
    assert all(piece not in word for word in whole.without(piece).words())
    assert len(whole.without(None).counts) == len(plain)


def test_neighbours_are_counted_within_documents(tokens) -> None:
    _, store = tokens
    known = Words.none()
    for text in read_texts(store, range(40)):
        known = known.plus(Words.of(text))
    known = known.most_frequent(12)
    found = count_neighbours(read_texts(store, range(40)), known, 5, 2)
    names, ranks = known.words(), known.ranks()
    expected = np.zeros_like(found)
    for document in range(40):
        starts = np.flatnonzero(store.word_starts(document))[1:]
        words = [tuple(word.tolist()) for word in np.split(store.ids(document), starts)]
        for place, word in enumerate(words):
            for other in words[max(0, place - 2) : place] + words[place + 1 : place + 3]:
                if word in names and other in names and ranks[names.index(other)] < 5:
                    expected[names.index(word), ranks[names.index(other)]] += 1
    assert found.sum() > 1000
    assert (found == expected).all()


def test_where_no_word_is_known_none_is_similar(tokens) -> None:
    """As where a vocabulary knows nothing of a text, and all of it is unknown."""
    _, store = tokens
    found = count_neighbours(read_texts(store, range(3)), Words.none(), 0, 2)
    assert found.shape == (0, 0)
    vectors = word_vectors(found, 100)
    assert vectors.shape == (0, 0)
    assert nearest_rows(vectors, 5, 0.4) == []


def test_vectors_keep_the_angles_of_the_information() -> None:
    """With all dimensions and squares: the products of rows are those of U S V' V S U'."""
    counts = np.random.default_rng(0).poisson(2.0, (30, 6)).astype(np.uint32)
    counts[3] = 0
    vectors = word_vectors(counts, 6)
    shares = counts.sum(axis=0) ** 0.75
    shares /= shares.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.log(counts / (counts.sum(axis=1)[:, None] * shares))
    information = np.nan_to_num(np.maximum(information, 0), posinf=0.0)
    left, sizes, _ = np.linalg.svd(information, full_matrices=False)
    expected = left * np.sqrt(sizes)
    norms = np.linalg.norm(expected, axis=1)
    expected = expected / np.where(norms > 1e-12, norms, 1)[:, None]
    expected[norms <= 1e-12] = 0
    assert np.abs(vectors @ vectors.T - expected @ expected.T).max() < 1e-9
    assert not vectors[3].any()


def test_nearest_rows_are_in_order_and_not_themselves() -> None:
    vectors = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]])
    assert nearest_rows(vectors, 2, 0.5) == [[1, 3], [3, 0], [3, 1], [1, 2]]
    assert nearest_rows(vectors, 1, 0.9) == [[], [3], [], [1]]
    assert nearest_rows(vectors[:0], 2, 0.5) == []
