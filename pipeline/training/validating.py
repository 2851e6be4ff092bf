"""The losses of a model on validation rows, the same on any number of ranks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.data import OpenRows, RowSource, to_batch
from pipeline.training.carried import Carried
from pipeline.training.engine import Engine


def evaluate_rows(
    engine: Engine, source: RowSource, micro_batch_rows: int, max_rows: int | None
) -> Tensor:
    """Sums ``[objectives, 3]`` over validation rows, dealt to the ranks.

    Rows beyond a multiple of the micro-batch are read alone by rank 0; the other ranks then
    compute weightless batches of the same shape, so that all take part in every collective.

    A model with memory reads the rows as so many streams as a micro-batch has rows, from empty
    memory on: as few as can be, so that almost all is read with something remembered. Rows beyond
    a multiple are not read, and all but rank 0 compute weightless batches.
    """
    opened = source.open()
    num_rows = min(opened.num_rows, max_rows or opened.num_rows)
    if engine.task.model.initial_memory(1) is not None:
        return _evaluate_streams(engine, opened, min(micro_batch_rows, num_rows), num_rows)
    whole, rest = divmod(num_rows, micro_batch_rows)
    parts = [range(i * micro_batch_rows, (i + 1) * micro_batch_rows) for i in range(whole)]
    if rest:
        parts.append(range(num_rows - rest, num_rows))
    total = _nothing(engine)
    for number in range(0, len(parts), engine.world_size):
        own = number + engine.rank
        batch = to_batch(opened.arrays(parts[own if own < len(parts) else number]))
        if own >= len(parts):
            batch = batch.weightless()
        total += engine.evaluate(batch.to(engine.device)).statistics
    return engine.sum(total)


def _evaluate_streams(engine: Engine, opened: OpenRows, streams: int, num_rows: int) -> Tensor:
    carried, total = Carried(engine, streams), _nothing(engine)
    length = num_rows // streams
    for turn in range(length):
        batch = to_batch(opened.read(turn + length * np.arange(streams), epoch=0))
        if engine.rank:
            batch = batch.weightless()
        passed = engine.evaluate(carried.give(batch, 0).to(engine.device))
        total += passed.statistics
        carried.keep(0, passed.memory)
        carried.settle(applied=True)
    return engine.sum(total)


def _nothing(engine: Engine) -> Tensor:
    return torch.zeros(len(engine.task.objective_names), 3, device=engine.device)
