from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.documents import SCHEMA, document_id
from preprocessing.storage import write_shard
from preprocessing.tokenizers.coverage import coverage
from preprocessing.tokenizers.models import TokenizersModel
from preprocessing.tokenizers.sampling import (
    TrainingTexts,
    bytes_by_language,
    copies_by_language,
    training_texts,
)


def write_shards(folder: Path, documents: list[tuple[str, str | None]], pieces: int) -> list[Path]:
    paths = []
    for number in range(pieces):
        own = documents[number::pieces]
        rows = [
            {
                "id": document_id(text), "text": text, "source": "a", "offset": 0,
                "language": language, "licence": None,
            }
            for text, language in own
        ]  # fmt: skip
        path = folder / f"part-{number:05d}.arrow"
        with write_shard(path, SCHEMA, 16) as writer:
            writer.write(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
            writer.finish(path.name, {})
        paths.append(path)
    return paths


DOCUMENTS: list[tuple[str, str | None]] = [
    *((f"english text number {i:05d}", "en") for i in range(900)),
    *((f"deutscher Satz {i:05d}", "de") for i in range(100)),
    *((f"unknown {i:05d}", None) for i in range(10)),
]


def taken(texts: TrainingTexts) -> Counter[str]:
    return Counter(text for batch in texts() for text in batch)


def test_everything_is_taken_once_where_nothing_is_asked(tmp_path: Path) -> None:
    paths = write_shards(tmp_path, DOCUMENTS, 2)
    found = taken(training_texts(paths, seed=1, alpha=1.0, max_bytes=2**30))
    assert found == Counter(text for text, _ in DOCUMENTS)
    assert bytes_by_language(paths) == {"de": 2000, "en": 22500, "und": 130}


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_languages_get_their_share(tmp_path: Path, alpha: float) -> None:
    paths = write_shards(tmp_path, DOCUMENTS, 1)
    sizes = bytes_by_language(paths)
    texts = training_texts(paths, seed=1, alpha=alpha, max_bytes=15000)
    found = texts.bytes_by_language()
    weights = {name: (size / sum(sizes.values())) ** alpha for name, size in sizes.items()}
    for name in ("de", "en"):
        expected = 15000 * weights[name] / sum(weights.values())
        assert found[name] == pytest.approx(expected, rel=0.1)
    counts = taken(texts)
    if alpha < 1:  # German is taken several times, every document about as often
        german = [counts[text] for text, language in DOCUMENTS if language == "de"]
        assert min(german) >= 1
        assert max(german) - min(german) <= 1


def test_draws_know_documents_and_not_shards(tmp_path: Path) -> None:
    one = write_shards(tmp_path / "one", DOCUMENTS, 1)
    many = write_shards(tmp_path / "many", DOCUMENTS[::-1], 3)

    def sample(paths: list[Path], seed: int) -> Counter[str]:
        return taken(training_texts(paths, seed=seed, alpha=0.3, max_bytes=9000))

    assert sample(one, 1) == sample(many, 1)
    assert sample(one, 1) != sample(one, 2)


@given(
    st.dictionaries(st.text("abc", min_size=1), st.integers(0, 10**12), min_size=1),
    st.floats(0, 1),
    st.integers(1, 10**12),
)
def test_copies_fill_the_limit_exactly(sizes: dict[str, int], alpha: float, limit: int) -> None:
    copies = copies_by_language(sizes, alpha, limit)
    total = sum(sizes.values())
    filled = sum(copies[name] * size for name, size in sizes.items())
    assert filled == pytest.approx(min(limit, total))
    assert copies_by_language(sizes, 1.0, limit) == {
        name: pytest.approx(min(limit, total) / total) if size else 1.0
        for name, size in sizes.items()
    }


def test_coverage_counts_what_it_says(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(
        models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2, "b": 3}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    documents: list[tuple[str, str | None]] = [("ab a", "en"), ("B xy", "en"), ("b", "de")]
    paths = tuple(write_shards(tmp_path, documents, 1))
    texts = TrainingTexts(paths, {"en": 1.0, "de": 2.0}, np.uint64(1))
    assert coverage(TokenizersModel(tokenizer), 0, texts) == {
        "de": {
            "documents": 1, "words": 1, "characters": 1, "distinct_characters": 1,
            "tokens_per_word": 1.0, "tokens_per_character": 1.0,
            "unknown_share": 0.0, "characters_covered": 1.0,
        },
        "en": {
            "documents": 2, "words": 4, "characters": 6, "distinct_characters": 5,
            "tokens_per_word": 1.25, "tokens_per_character": 0.833333,
            "unknown_share": 0.2, "characters_covered": 0.666667,
        },
    }  # fmt: skip
