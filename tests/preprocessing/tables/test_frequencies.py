import numpy as np
import pytest
from corpora import ListStore

from preprocessing.tables.frequencies import FrequenciesTable


class Words:
    """As much of a vocabulary as is asked for: ids 0 to 4 are special, 1 is the unknown one."""

    size = 12

    def id_of(self, role: str) -> int | None:
        return {"pad": 0, "unknown": 1, "start": 2, "separator": 3, "mask": 4}.get(role)


def test_worked_example() -> None:
    table, words = FrequenciesTable(), Words()
    store = ListStore([[[5, 7], [5]], [[9], [5]]])
    counts = [table.count(words, store, shard) for shard in (range(1), range(1, 2))]
    assert [one["frequencies"].tolist() for one in counts] == [
        [0, 0, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0],
    ]
    found, sums = table.build(words, store, counts).values()
    assert found.tolist() == [0, 0, 0, 0, 0, 3, 0, 1, 0, 1, 0, 0]
    assert sums.tolist() == [0, 0, 0, 0, 0, 3, 3, 4, 4, 5, 5, 5]
    assert found.dtype == sums.dtype == np.int64


def test_special_tokens_count_for_nothing_save_the_unknown_one() -> None:
    table, words = FrequenciesTable(), Words()
    store = ListStore([[[0, 1, 1, 2, 3, 4, 11]]])
    counts = table.count(words, store, range(1))
    found = table.build(words, store, [counts])["frequencies"]
    assert np.flatnonzero(found).tolist() == [1, 11]
    assert found[1] == 2


@pytest.mark.parametrize("at_a_time", [1, 7, 1 << 20])
def test_counts_do_not_depend_on_how_many_tokens_are_held(at_a_time: int, monkeypatch) -> None:
    monkeypatch.setattr("preprocessing.tables.frequencies._TOKENS_AT_A_TIME", at_a_time)
    documents = [[np.random.default_rng(n).integers(5, 12, size=n).tolist()] for n in range(1, 20)]
    found = FrequenciesTable().count(Words(), ListStore(documents), range(3, 19))
    tokens = [token for (sentence,) in documents[3:19] for token in sentence]
    assert found["frequencies"].tolist() == np.bincount(tokens, minlength=12).tolist()


def test_a_shard_without_documents_counts_nothing() -> None:
    found = FrequenciesTable().count(Words(), ListStore([[[5]]]), range(0))
    assert found["frequencies"].sum() == 0
