"""Packed rows and rows of one sequence each give the same losses and gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from seam_runs import objectives
from torch import Tensor
from twins import TWINS

from configs.schema import load
from pipeline.data import RowSource, to_batch
from pipeline.objectives.task import PretrainingTask
from pipeline.settings import Run, decode_run


@pytest.fixture
def run(recipe: Path) -> Run:
    return decode_run(load(recipe))


def everything(run: Run, twin: str, examples: str) -> tuple[int, Tensor, dict[str, Tensor]]:
    """Rows, summed statistics and gradients of all training rows, in fp64 but for the losses."""
    torch.manual_seed(0)
    task = PretrainingTask(TWINS[twin](run.model.vocab_size, 0.0), objectives(twin)).double()
    corruption = run.preparation.examples[examples].corruption
    directory = run.preparation.examples_directory(examples)
    rows = RowSource(directory, "train", corruption, run.seed, None).open()
    total = torch.zeros(len(task.objectives), 3, dtype=torch.float64)
    for begin in range(0, rows.num_rows, 64):
        batch = to_batch(rows.arrays(range(begin, min(begin + 64, rows.num_rows))))
        loss, statistics, _ = task(batch, torch.full((len(task.objectives),), 1000.0))
        loss.backward()
        total += statistics
    return rows.num_rows, total, {n: p.grad for n, p in task.named_parameters()}


@pytest.mark.parametrize("twin", ["pair", "translator"])
def test_packing_changes_nothing_but_the_number_of_rows(run: Run, twin: str) -> None:
    packed_rows, packed, gradients = everything(run, twin, twin)
    rows, apart, expected = everything(run, twin, f"{twin}_apart")
    assert packed_rows < 0.7 * rows
    assert packed[:, 1:].equal(apart[:, 1:])
    torch.testing.assert_close(packed, apart, rtol=1e-6, atol=0)
    for name, gradient in gradients.items():
        error = (gradient - expected[name]).norm()
        assert error <= 1e-6 * expected[name].norm() + 1e-9, name
