"""Trainings of the twins, by the real stages, loop and engines; only the model is another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from small_run import Job, run_job, write_corpus
from spawned import spawn
from twins import TWINS, WEIGHTS, Classified

RECIPE = """
seed: 5
corpus:
  directory: {root}/data
  inputs: [{root}/corpus.txt]
  validation: {{heldout: {{share: 0.1}}}}
  shard_bytes: 20000
tokenizer: {{kind: wordpiece, vocab_size: 300, sentinels: 16}}
examples:
  pair: {{length: 64, layout: {{kind: blocks}}, pack: true, corruption: {{kind: replaced}}}}
  pair_apart: {{length: 64, layout: {{kind: blocks}}, corruption: {{kind: replaced}}}}
  stream:
    {{length: 16, layout: {{kind: streams}}, frame: sep, corruption: {{kind: causal}}}}
  translator:
    {{length: 64, decoder_length: 24, layout: {{kind: blocks}}, frame: none, pack: true,
     corruption: {{kind: span_corruption}}}}
  translator_apart:
    {{length: 64, decoder_length: 24, layout: {{kind: blocks}}, frame: none,
     corruption: {{kind: span_corruption}}}}
model: {{family: bert, vocab_size: 320, hidden_size: 32, num_layers: 1, num_heads: 2,
         max_positions: 64, next_sentence: false}}
objectives: [{{kind: masked_lm}}]
optimizer: {{kind: lamb}}
schedule: {{kind: constant, warmup_steps: 2}}
phases:
  - {{examples: pair, steps: 6, batch_rows: 12, learning_rate: 6e-3}}
train: {{micro_batch_rows: 4, log_every: 1, evaluate_every: 6, save_every: 2, keep_checkpoints: 3,
         loader_workers: 0, gradient_clipping: 1.0}}
tracking: {{mode: disabled}}
evaluation: {{max_rows: 20, micro_batch_rows: 4}}
output: {{directory: {root}/run}}
"""
"""Dropout is on; three micro-batches do not divide over two ranks."""


@dataclass(frozen=True)
class TwinJob:
    """One training of a twin; ``overrides`` are the recipe's, ``stop_at`` a step."""

    twin: str
    output: Path
    overrides: tuple[str, ...] = ()
    stop_at: int | None = None


def prepare_twins(root: Path) -> Path:
    """Write corpus and recipe below ``root``, and run the stages; returns the recipe."""
    from configs.schema import load
    from preprocessing.commands import run_preparation
    from preprocessing.settings import decode_preparation

    write_corpus(root / "long.txt", documents=160)
    sentences = (root / "long.txt").read_text().replace("\n\n", " ").split(". ")
    documents = [". ".join(sentences[at : at + 2]) for at in range(0, len(sentences), 2)]
    (root / "corpus.txt").write_text("\n\n".join(documents) + "\n")
    recipe = root / "recipe.yaml"
    recipe.write_text(RECIPE.format(root=root))
    for _ in run_preparation(decode_preparation(load(recipe))):
        pass
    return recipe


def run_twins(recipe: Path, jobs: Sequence[TwinJob], ranks: int) -> None:
    """Trainings one after the other in the same ``ranks`` processes."""
    spawn(_work, ranks, recipe, tuple(jobs))


def _work(rank: int, recipe: Path, jobs: tuple[TwinJob, ...]) -> None:
    from pipeline.nn import products

    products.SMALLEST = 0  # the models are small, and the products of large ones are meant
    for job in jobs:
        run_twin(recipe, job)


def run_twin(recipe: Path, job: TwinJob) -> None:
    """One training in this process."""
    import pytest

    from pipeline.training import start

    streams = f"phases.0.streams={str(job.twin == 'stream').lower()}"
    overrides = (f"phases.0.examples={job.twin}", streams, *job.overrides)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "build_model", lambda config: TWINS[job.twin](config.vocab_size))
        patch.setattr(start, "build_objectives", lambda configs: objectives(job.twin))
        patch.setattr(start.build_task, "__defaults__", (start.build_model,))
        run_job(recipe, Job(job.output, overrides, stop_at=job.stop_at))


def objectives(twin: str) -> dict[str, Classified]:
    """The losses of a twin."""
    return {name: Classified(name, WEIGHTS.get(name, 1.0)) for name in TWINS[twin].outputs}
