"""Real prose as sequences: cut once for all schemes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from preprocessing.corruption import Context, Sequences
from preprocessing.marks import SENTENCE, WORD

NUM_TOKENS = 1_200_000

Prose = Callable[..., tuple[Context, Sequences]]


@pytest.fixture(scope="session")
def _tokens(tmp_path_factory: pytest.TempPathFactory) -> tuple[Context, np.ndarray, np.ndarray]:
    """Special ids, and some million tokens of English novels with their marks."""
    from corpora import prepare_config, run_stages

    from preprocessing.building import special_ids
    from preprocessing.marks import document_marks
    from preprocessing.tokens import TokenStore
    from preprocessing.vocabulary import Vocabulary

    root = os.environ.get("LEXMILL_DATA")
    if not root:
        pytest.skip("needs real text: set LEXMILL_DATA")
    folder = tmp_path_factory.mktemp("prose")
    text = (Path(root) / "en_novels" / "novels_en.txt").read_text(encoding="utf-8")[:6_000_000]
    (folder / "raw").mkdir()
    (folder / "raw" / "prose.txt").write_text(text, encoding="utf-8")
    preparation = prepare_config(
        folder,
        tokenizer={"kind": "wordpiece", "vocab_size": 8000},
        corpus={"shard_bytes": 2**24, "validation": {"heldout": {"share": 0.01}}},
    )
    run_stages(preparation, names=("ingest", "deduplicate", "tokenizer", "tokenize"))
    vocabulary = Vocabulary.load(preparation.tokenizer_directory)
    store = TokenStore(preparation.tokens_directory, "train")
    ids = np.concatenate([store.ids(one) for one in range(store.num_documents)]).astype(np.int64)
    marks = np.concatenate(
        [document_marks(store, one, WORD | SENTENCE) for one in range(store.num_documents)]
    )
    assert len(ids) >= NUM_TOKENS
    return Context(special_ids(vocabulary)), ids, marks


@pytest.fixture(scope="session")
def prose(_tokens: tuple[Context, np.ndarray, np.ndarray]) -> Prose:
    """``prose(length, specials=True)``: over a million real tokens in sequences of one length.

    With specials each is ``[CLS] ... [SEP]``, ``length`` counts them.
    """
    context, ids, marks = _tokens

    def cut(length: int, *, specials: bool = True) -> tuple[Context, Sequences]:
        inside = length - 2 if specials else length
        count = NUM_TOKENS // inside
        tokens = np.empty((count, length), dtype=np.int64)
        own_marks = np.zeros((count, length), dtype=np.uint8)
        middle = slice(1, -1) if specials else slice(None)
        tokens[:, middle] = ids[: count * inside].reshape(count, inside)
        own_marks[:, middle] = marks[: count * inside].reshape(count, inside)
        if specials:
            tokens[:, 0], tokens[:, -1] = context.special.start, context.special.separator
        return context, Sequences(
            tokens=tokens.reshape(-1),
            offsets=np.arange(count + 1) * length,
            ids=np.arange(count).astype(np.uint64),
            first_lengths=np.full(count, length),
            labels=np.full(count, -1),
            marks=own_marks.reshape(-1),
        )

    return cut
