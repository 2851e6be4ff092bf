"""Rows of several micro-batches in one, and one row out of it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.arrangement import IGNORED, Arrays, Shape, arrange, interleave, single_row
from preprocessing.corruption import Corrupted, Sequences, Side, Targets

SHAPE = Shape(8, {"masked_lm": 3, "causal_lm": 2}, 1, "next_sentence", decoder_length=4, pad=9)


def rows(numbers: list[int]) -> Arrays:
    """Rows of one sequence each, of which every number follows from the number of the row."""
    lengths = np.array([2 + number % 7 for number in numbers], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    inner = np.repeat(numbers, lengths) * 100 + np.concatenate(
        [np.arange(length) for length in lengths]
    )
    sequences = Sequences(
        tokens=inner.astype(np.int64),
        offsets=offsets,
        ids=np.array(numbers, dtype=np.uint64),
        first_lengths=lengths,
        labels=np.array([number % 2 for number in numbers], dtype=np.int64),
        marks=np.zeros(0, dtype=np.uint8),
    )
    count = np.minimum(lengths, np.array([number % 4 for number in numbers]))
    places = np.concatenate(
        [offset + np.arange(own) for offset, own in zip(offsets, count, strict=False)]
    ).astype(np.int64)
    side = Side(np.repeat(numbers, 2).astype(np.int64), 2 * np.arange(len(numbers) + 1))
    corrupted = Corrupted(
        sequences,
        {
            "masked_lm": Targets(
                places,
                inner[places],
                {
                    "left_place": places,
                    "uniform": (inner[places] / 7).astype(np.float32),
                },
            ),
            "causal_lm": Targets(
                np.arange(2 * len(numbers)), np.repeat(numbers, 2), of_decoder=True
            ),
        },
        channels={"rank": inner},
        decoder=side,
    )
    return arrange(corrupted, np.arange(len(numbers)), len(numbers), SHAPE)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_interleaved_parts_are_as_if_they_had_been_arranged_together(sources: list[int]) -> None:
    of_source = np.array(sources)
    order = [np.flatnonzero(of_source == source) for source in np.unique(of_source)]
    mixed = interleave([rows(own.tolist()) for own in order], order)
    whole = rows(list(range(len(sources))))

    assert mixed.named().keys() == whole.named().keys()
    in_order = (np.concatenate(order) == np.arange(len(sources))).all()
    for name, expected in whole.named().items():
        found = mixed.named()[name]
        assert found.dtype == expected.dtype, name
        if in_order and "targets/" in name:
            continue  # joined as they are, with padding in between
        assert np.array_equal(found, expected), name


@given(st.integers(1, 9), st.data())
def test_a_single_row_is_what_it_was_alone(count: int, data: st.DataObject) -> None:
    row = data.draw(st.integers(0, count - 1))
    found, alone = single_row(rows(list(range(count))), row), rows([row])

    for name in ("ids", "sequence_ids", "positions", "segment_ids"):
        assert np.array_equal(getattr(found, name), getattr(alone, name))
    assert found.decoder is not None
    assert alone.decoder is not None
    assert np.array_equal(found.decoder.ids, alone.decoder.ids)
    assert np.array_equal(found.channels["rank"], alone.channels["rank"])
    for name, targets in alone.targets.items():
        real = targets.labels != IGNORED
        assert np.array_equal(found.targets[name].indices, targets.indices[real])
        assert np.array_equal(found.targets[name].labels, targets.labels[real])
        for key, values in targets.extra.items():
            assert np.array_equal(found.targets[name].extra[key], values[real])
