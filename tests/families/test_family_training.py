"""Each family trains as its reference does: on real rows, padded and packed, with all its heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from family_cases import FAMILIES
from family_runs import MICRO_BATCH_ROWS, ROWS, STEPS
from references import Reference, unpack
from torch import Tensor, nn

from configs.schema import load
from pipeline.batch import Batch
from pipeline.data import Deal, MicroBatch, count_targets
from pipeline.data import load as load_batches
from pipeline.fitting import keep_targets
from pipeline.huggingface.tokenizer import read_tokenizer
from pipeline.models import build_model
from pipeline.objectives import build_objectives
from pipeline.objectives.task import PretrainingTask
from pipeline.opening import open_data
from pipeline.settings import Run, decode_run

RecipeOf = Callable[[str], Path]
EVERY = pytest.mark.parametrize("name", FAMILIES)
ROWS_OF = {"padded": 0, "packed": 1}
"""The phase of the small run that has such rows."""


def steps_of(run: Run, task: PretrainingTask, rows: str) -> Iterator[list[MicroBatch]]:
    """The micro-batches of twenty steps, as the trainer loads them."""
    source = keep_targets(open_data(run), task.objective_names).phases[ROWS_OF[rows]]
    deal = Deal(0, STEPS, ROWS, MICRO_BATCH_ROWS, rank=0, world_size=1)
    return load_batches(source, deal, workers=0, pin=False)


def plain_loss(reference: Reference, batches: list[Batch]) -> Tensor:
    """The sum over the objectives of the mean cross-entropy at all targets of a step."""
    alone = [unpack(batch) for batch in batches]
    made = [reference(batch) for batch in alone]
    losses = [
        F.cross_entropy(
            torch.cat([logits[name] for logits in made]),
            torch.cat([batch.targets[name].labels for batch in alone]).long(),
        )
        for name in alone[0].targets
    ]
    return torch.stack(losses).sum()


def both(run: Run, name: str) -> tuple[PretrainingTask, Reference]:
    """Our model and the reference with the same weights."""
    torch.manual_seed(0)
    info = read_tokenizer(run.preparation.tokenizer_directory)
    # Not train(): ALBERT's class drops out before its classifier, whatever the configuration says.
    reference = FAMILIES[name].reference(run.model, info).eval()
    task = PretrainingTask(build_model(run.model), build_objectives(run.objectives)).train()
    task.model.load_state_dict(reference.ours())
    return task, reference


def adamw(module: nn.Module) -> torch.optim.Optimizer:
    """Without an update for rounding errors: a key's bias has no other gradient."""
    return torch.optim.AdamW(module.parameters(), lr=1e-3, eps=1e-6, weight_decay=0.01)


@EVERY
@pytest.mark.parametrize("rows", ROWS_OF)
def test_twenty_steps_are_those_of_a_plain_loop_over_the_reference(
    recipe_of: RecipeOf, name: str, rows: str
) -> None:
    run = decode_run(load(recipe_of(name)))
    task, reference = both(run, name)
    ours, theirs = adamw(task), adamw(reference)
    losses = []
    for step in steps_of(run, task, rows):
        counts = count_targets(step, task.objective_names)[:-3]
        assert counts.all(), "each objective has targets"
        total = 0.0
        for batch, _, _ in step:
            loss = task(batch, counts.float()).loss
            loss.backward()
            total += loss.item()
        plain = plain_loss(reference, [batch for batch, _, _ in step])
        plain.backward()
        for optimizer in (ours, theirs):
            optimizer.step()
            optimizer.zero_grad()
        losses.append((total, plain.item()))
    own, other = torch.tensor(losses).unbind(1)
    torch.testing.assert_close(own, other, atol=1e-5, rtol=0)
    assert own[-5:].mean() < own[:5].mean() - 0.02
    expected = reference.ours()
    for tensor, values in task.model.state_dict().items():
        torch.testing.assert_close(values, expected[tensor], atol=1e-5, rtol=0, msg=tensor)


@EVERY
def test_the_packed_loss_is_the_unpacked_one(recipe_of: RecipeOf, name: str) -> None:
    run = decode_run(load(recipe_of(name)))
    task, _ = both(run, name)
    ones = torch.ones(len(task.objective_names))
    (batch, _, _), *_ = next(steps_of(run, task, "packed"))
    assert (batch.sequence_ids > 1).any(), "there is more than one sequence in a row"
    packed, alone = task(batch, ones), task(unpack(batch), ones)
    torch.testing.assert_close(packed.statistics, alone.statistics, atol=0, rtol=1e-6)
