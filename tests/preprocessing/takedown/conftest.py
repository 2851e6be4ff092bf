"""A prepared corpus to take documents out of."""

from pathlib import Path

import pytest
from corpora import make_text, prepare_config, run_stages, write_documents

from preprocessing.settings import Preparation


@pytest.fixture
def documents() -> list[str]:
    return make_text(60, seed=4)


@pytest.fixture
def corpus(tmp_path: Path, documents: list[str]) -> Preparation:
    """Document 7 stands three times, once in other clothes; 9 has a near duplicate."""
    near = documents[9].replace(".", " indeed.", 1)
    write_documents(tmp_path / "raw" / "a.txt", [*documents[:30], documents[7], near])
    write_documents(tmp_path / "raw" / "b.txt", [*documents[30:], documents[7] + "\x00"])
    preparation = prepare_config(
        tmp_path,
        corpus={
            "shard_bytes": 2500,
            "clean": {"profiles": {"default": {"gopher": None, "repetition": None}}},
            "deduplicate": {"near": {"ngram": 1, "threshold": 0.8}},
        },
    )
    run_stages(preparation)
    return preparation
