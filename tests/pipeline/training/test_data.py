"""Micro-batches: dealt evenly, the same for everybody, in any process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.schema import load
from pipeline.data import Deal, count_targets
from pipeline.data import load as load_batches
from pipeline.opening import open_data
from pipeline.settings import decode_run


def test_three_micro_batches_over_two_ranks() -> None:
    def work(rank: int) -> list[tuple[int, int, bool]]:
        deal = Deal(
            first_position=120, steps=2, batch_rows=24, micro_batch_rows=8, rank=rank, world_size=2
        )
        return [(item.positions.start, item.number, item.counts) for item in deal]

    assert work(0) == [(120, 0, True), (136, 2, True), (144, 0, True), (160, 2, True)]
    assert work(1) == [(128, 1, True), (120, 3, False), (152, 1, True), (144, 3, False)]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("micro_batches", [1, 2, 6])
def test_every_position_is_dealt_once_and_work_is_equal(
    world_size: int, micro_batches: int
) -> None:
    positions: list[int] = []
    rounds = set()
    for rank in range(world_size):
        deal = Deal(
            first_position=0,
            steps=3,
            batch_rows=4 * micro_batches,
            micro_batch_rows=4,
            rank=rank,
            world_size=world_size,
        )
        work = list(deal)
        rounds.add(len(work))
        positions += [p for item in work if item.counts for p in item.positions]

    assert sorted(positions) == list(range(3 * 4 * micro_batches))
    assert len(rounds) == 1


@pytest.mark.parametrize("phase", [0, 1])
def test_workers_and_ranks_change_nothing(recipe: Path, phase: int) -> None:
    """Past the end of the first epoch, too: the small corpus holds fewer rows than are read."""
    run = decode_run(load(recipe))
    source = open_data(run).phases[phase]
    whole = Deal(
        first_position=72, steps=30, batch_rows=24, micro_batch_rows=8, rank=0, world_size=1
    )
    assert source.open().num_rows < 33 * 24
    alone = list(load_batches(source, whole, workers=0, pin=False))
    worked = list(load_batches(source, whole, workers=2, pin=False))
    ranks = [
        list(load_batches(source, replace(whole, rank=rank, world_size=2), workers=0, pin=False))
        for rank in range(2)
    ]
    for step in range(30):
        prints = [batch.fingerprint for batch in alone[step]]
        assert [batch.fingerprint for batch in worked[step]] == prints
        dealt = {b.number: b.fingerprint for rank in ranks for b in rank[step] if b.fingerprint}
        assert [dealt[number] for number in range(3)] == prints
        for ours, theirs in zip(alone[step], worked[step], strict=True):
            assert torch.equal(ours.batch.ids, theirs.batch.ids)


def test_counts_are_of_real_targets_and_tokens(recipe: Path) -> None:
    source = open_data(decode_run(load(recipe))).phases[1]
    deal = Deal(first_position=0, steps=1, batch_rows=16, micro_batch_rows=8, rank=0, world_size=1)
    (batches,) = load_batches(source, deal, workers=0, pin=False)
    counts = count_targets(batches, ("masked_lm", "next_sentence"))
    rows = [batch.batch for batch in batches]

    assert counts[0] == sum((b.targets["masked_lm"].labels >= 0).sum() for b in rows)
    assert counts[1] == sum(b.sequence_ids.max(dim=1).values.sum() for b in rows)
    assert counts[2] == sum((b.ids != 0).sum() for b in rows)
    assert counts[3] == 16 * 48
    assert counts[4] == sum(b.fingerprint for b in batches)


def test_packed_rows_hold_several_sequences(recipe: Path) -> None:
    source = open_data(decode_run(load(recipe))).phases[1]
    rows = source.open()
    arrays = rows.arrays(range(64))

    assert arrays.sequence_ids.max() > 1
    first = arrays.sequence_ids[:, 1:] != arrays.sequence_ids[:, :-1]
    real = arrays.sequence_ids[:, 1:] > 0
    assert np.all(arrays.positions[:, 1:][first & real] == 0)
