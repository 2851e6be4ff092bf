"""Engines alone, without data and loop: a few steps on drawn batches, many cases a spawn."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from small_run import RECIPE
from spawned import spawn
from torch import Tensor

from configs.schema import load
from pipeline.batch import IGNORED, Batch, Targets
from pipeline.optim import Lamb
from pipeline.settings import Run, decode_run
from pipeline.training.engine import Engine

STEPS = 3
MICRO_BATCHES = 4
RATE = 0.01
INFINITE = float("inf")


@dataclass(frozen=True)
class EngineCase:
    """Some steps of an engine.

    Attributes:
        name: of the case; what it leaves is found under it.
        overrides: of the small recipe.
        left_out: steps that do not train ``next_sentence``.
        reload: save the end, and compare the next step's scale with that of who loads it.
        fp16_on_cpu: let DeepSpeed compute fp16 here, which it refuses by itself.
    """

    name: str
    overrides: tuple[str, ...] = ()
    left_out: tuple[int, ...] = ()
    steps: int = STEPS
    reload: bool = False
    fp16_on_cpu: bool = False


def decode(root: Path, overrides: Sequence[str] = ()) -> Run:
    """The small recipe; nothing of its data is there."""
    recipe = root / f"recipe-{os.getpid()}.yaml"
    recipe.write_text(RECIPE.format(root=root))
    return decode_run(load(recipe, list(overrides)))


def draw_batch(number: int, rows: int = 4, length: int = 24) -> Batch:
    """Full rows of random tokens; the last masked target is padding."""
    generator = torch.Generator().manual_seed(number)

    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, shape, generator=generator)

    masked = draw(300, 13)
    masked[-1] = IGNORED
    return Batch(
        ids=draw(300, rows, length),
        sequence_ids=torch.ones(rows, length, dtype=torch.long),
        positions=torch.arange(length).expand(rows, length),
        segment_ids=draw(2, rows, length),
        targets={
            "masked_lm": Targets(draw(rows * length, 13), masked),
            "next_sentence": Targets(torch.arange(rows) * length, draw(2, rows)),
        },
    )


def train_step(
    engine: Engine, step: int, *, left_out: bool = False, after: Callable[[], None] | None = None
) -> Any:
    """A step on the same rows with the same dropout on any number of ranks; its outcome.

    ``after`` is called between the last backward pass and the update.
    """
    counts = {"masked_lm": 12.0, "next_sentence": INFINITE if left_out else 4.0}
    denominators = MICRO_BATCHES * torch.tensor(
        [counts[name] for name in engine.task.objective_names], device=engine.device
    )
    for number in range(engine.rank, MICRO_BATCHES, engine.world_size):
        torch.manual_seed(1000 * step + number)
        batch = draw_batch(100 * step + number).to(engine.device)
        targets = {name: batch.targets[name] for name in engine.task.objective_names}
        engine.backward(replace(batch, targets=targets), denominators)
    if after is not None:
        after()
    return engine.step(RATE)


def run_case(case: EngineCase, run: Run) -> dict[str, Any]:
    """Train, and tell what came of it (on every rank; the weights on rank 0)."""
    from pipeline.training.start import build_engine

    engine = build_engine(run)
    engine.begin_phase(MICRO_BATCHES // engine.world_size)
    initial = engine.weights()
    trail, outcomes = [], []
    for step in range(case.steps):
        outcomes.append(train_step(engine, step, left_out=step in case.left_out))
        trail.append({"weights": engine.weights()})
        if case.left_out:
            trail[-1]["moments"] = moments(engine)
        if isinstance(engine.optimizer, Lamb):
            trail[-1]["counts"] = engine.optimizer.tensor_steps()
    batch = draw_batch(7)
    targets = {name: batch.targets[name] for name in engine.task.objective_names}
    statistics = engine.sum(engine.evaluate(replace(batch, targets=targets)).statistics.clone())
    resumed = {}
    if case.reload:
        place = run.output.directory / case.name
        engine.save(place)
        resumed["undisturbed"] = train_step(engine, case.steps).loss_scale
        engine = build_engine(run)
        engine.begin_phase(MICRO_BATCHES // engine.world_size)
        engine.load(place)
        resumed["kept"] = train_step(engine, case.steps).loss_scale
    return {
        "resumed": resumed,
        "initial": initial,
        "trail": trail,
        "norms": [outcome.gradient_norm for outcome in outcomes],
        "scales": [outcome.loss_scale for outcome in outcomes],
        "applied": [outcome.applied for outcome in outcomes],
        "statistics": statistics / engine.world_size,
    }


def moments(engine: Engine) -> dict[str, Tensor]:
    """Both moments of every trained tensor, whole."""
    names = dict(engine.task.model.named_parameters())
    states = ("exp_avg", "exp_avg_sq")
    if engine.kind == "local" or engine.stage == 0:  # type: ignore[attr-defined]
        found = engine.optimizer.state
        return {
            f"{name}/{state}": found[tensor][state].clone()
            for name, tensor in names.items()
            for state in states
        }
    from deepspeed.utils import safe_get_full_optimizer_state

    return {
        f"{name}/{state}": safe_get_full_optimizer_state(tensor, state).clone()
        for name, tensor in names.items()
        for state in states
    }


def run_cases(root: Path, cases: Sequence[EngineCase], ranks: int) -> Mapping[str, dict[str, Any]]:
    """All cases one after the other in the same ``ranks`` processes."""
    for case in cases:
        decode(root, case.overrides)  # what is wrong is said here, and not by a rank
    place = root / "outcomes.pt"
    spawn(_work, ranks, root, tuple(cases), place)
    found: Mapping[str, dict[str, Any]] = torch.load(place)
    return found


def _work(rank: int, root: Path, cases: tuple[EngineCase, ...], place: Path) -> None:
    from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

    from pipeline.training import start

    supported, cuda = CPU_Accelerator.is_fp16_supported, start.check_device
    outcomes = {}
    for case in cases:
        if case.fp16_on_cpu:
            CPU_Accelerator.is_fp16_supported = lambda self: True
            start.check_device = lambda run: None
        try:
            outcomes[case.name] = run_case(case, decode(root, case.overrides))
        finally:
            CPU_Accelerator.is_fp16_supported, start.check_device = supported, cuda
    if rank == 0:
        torch.save(outcomes, place)
