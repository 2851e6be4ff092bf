"""A small corpus, a small recipe, and jobs on several ranks: shared by the training tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from spawned import spawn
from torch import Tensor

RECIPE = """
seed: 3
corpus:
  directory: {root}/data
  inputs: [{root}/corpus.txt]
  validation: {{heldout: {{share: 0.1}}}}
  shard_bytes: 20000
tokenizer: {{kind: wordpiece, vocab_size: 300}}
examples:
  pairs:
    length: 32
    layout: {{kind: pairs}}
    corruption: {{kind: masked}}
    copies: 2
  packed:
    length: 48
    layout: {{kind: pairs}}
    pack: true
    corruption: {{kind: masked}}
model: {{family: bert, vocab_size: 320, hidden_size: 32, num_layers: 2, num_heads: 2,
         intermediate_size: 64, max_positions: 48}}
objectives: [{{kind: masked_lm}}, {{kind: next_sentence}}]
optimizer: {{kind: lamb}}
schedule: {{kind: constant, warmup_steps: 2}}
phases:
  - {{examples: pairs, steps: 12, batch_rows: 24, learning_rate: 6e-3}}
  - {{examples: packed, steps: 8, batch_rows: 16, learning_rate: 4e-3}}
train: {{micro_batch_rows: 8, log_every: 1, evaluate_every: 10, save_every: 4, loader_workers: 0}}
tracking: {{mode: disabled}}
evaluation: {{max_rows: 20, micro_batch_rows: 8}}
output: {{directory: {root}/run}}
"""
"""Dropout is on, three micro-batches do not divide over two ranks, and the second phase packs."""

TOTAL_STEPS = 20


def write_corpus(path: Path, documents: int = 120, seed: int = 0) -> None:
    """Made-up prose: words of a Zipfian vocabulary, in which each word favours a few successors."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    words = ["".join(rng.choice(letters, rng.integers(2, 8))) for _ in range(200)]
    weights = 1 / np.arange(1, 201)
    favourites = rng.integers(0, 200, (200, 3))
    texts = []
    for _ in range(documents):
        sentences = []
        for _ in range(rng.integers(3, 12)):
            word = rng.choice(200, p=weights / weights.sum())
            sentence = []
            for _ in range(rng.integers(4, 14)):
                sentence.append(words[word])
                word = (
                    rng.choice(favourites[word])
                    if rng.random() < 0.7
                    else rng.choice(200, p=weights / weights.sum())
                )
            sentences.append(" ".join(sentence).capitalize() + ".")
        texts.append(" ".join(sentences))
    path.write_text("\n\n".join(texts) + "\n", encoding="utf-8")


def prepare(root: Path) -> Path:
    """Write corpus and recipe below ``root`` and run the stages; returns the recipe."""
    from configs.schema import load
    from preprocessing.commands import run_preparation
    from preprocessing.settings import decode_preparation

    write_corpus(root / "corpus.txt")
    recipe = root / "recipe.yaml"
    recipe.write_text(RECIPE.format(root=root))
    for _ in run_preparation(decode_preparation(load(recipe))):
        pass
    return recipe


@dataclass(frozen=True)
class Job:
    """One training: its output directory, overrides, and what goes wrong in it."""

    output: Path
    overrides: tuple[str, ...] = ()
    stop_at: int | None = None
    naive_lamb: bool = False


class Stopped(RuntimeError):
    """The job was stopped on purpose."""


class NaiveLamb(torch.optim.Optimizer):
    """LAMB that takes flat partitions for tensors: what a trust ratio must not be."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.0, "weight_decay": 0.01})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                first = state.setdefault("exp_avg", torch.zeros_like(parameter))
                second = state.setdefault("exp_avg_sq", torch.zeros_like(parameter))
                first.mul_(0.9).add_(parameter.grad, alpha=0.1)
                second.mul_(0.999).addcmul_(parameter.grad, parameter.grad, value=0.001)
                update = first / (second.sqrt() + 1e-6) + group["weight_decay"] * parameter
                ratio = 1.0
                if group["weight_decay"] and parameter.norm() > 0 and update.norm() > 0:
                    ratio = float(parameter.norm() / update.norm())
                parameter.sub_(update, alpha=group["lr"] * ratio)


def run_jobs(recipe: Path, jobs: Sequence[Job], ranks: int) -> None:
    """Run trainings one after the other in the same ``ranks`` processes."""
    spawn(_work, ranks, recipe, tuple(jobs))


def _work(rank: int, recipe: Path, jobs: tuple[Job, ...]) -> None:
    for job in jobs:
        run_job(recipe, job)


def run_job(recipe: Path, job: Job) -> None:
    """One training in this process."""
    from configs.schema import load
    from pipeline.settings import decode_run
    from pipeline.training import start
    from pipeline.training.loop import Trainer

    run = decode_run(load(recipe, [f"output.directory={job.output}", *job.overrides]))
    original_step, original_optimizer = Trainer.step, start.build_optimizer

    def step(self: Trainer, number: int, batches: Any) -> Any:
        if number == job.stop_at:
            raise Stopped
        return original_step(self, number, batches)

    def naive(config: Any, task: Any) -> NaiveLamb:
        groups = [
            {k: v for k, v in group.items() if k in ("params", "weight_decay")}
            for group in original_optimizer(config, task).param_groups
        ]
        return NaiveLamb(groups)

    Trainer.step = step
    if job.naive_lamb:
        start.build_optimizer = naive
    try:
        start.start_training(run)
    except Stopped:
        pass
    finally:
        Trainer.step, start.build_optimizer = original_step, original_optimizer


def weights(output: Path) -> dict[str, Tensor]:
    """The weights of the newest checkpoint."""
    newest = (output / "checkpoints" / "latest").read_text().strip()
    return load_file(output / "checkpoints" / newest / "model.safetensors")


def records(output: Path, kind: str) -> list[dict[str, Any]]:
    """Records of one kind, without the measured speeds."""
    lines = (output / "metrics.jsonl").read_text().splitlines()
    found = [record for record in map(json.loads, lines) if record["kind"] == kind]
    speeds = ("_per_second", "mfu", "hfu")
    return [
        {key: value for key, value in record.items() if not key.endswith(speeds)}
        for record in found
    ]


def largest_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest ``|difference| / |tensor|``; key biases count absolutely.

    The gradient of a key bias is zero but for rounding, and LAMB normalises what there is.
    """
    assert ours.keys() == theirs.keys()
    return max(
        float((ours[name] - theirs[name]).norm())
        / (1.0 if name.endswith("key.bias") else float(theirs[name].norm()))
        for name in theirs
    )
