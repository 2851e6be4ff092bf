"""A run in small, from raw text to two checkpoints, made once by the real stages and the loop."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import pytest

from configs.schema import load
from pipeline.settings import Run, decode_run

RECIPE = """
seed: 3
corpus:
  directory: {place}/data
  inputs: [{place}/corpus.jsonl]
  form: jsonl
  validation: {{heldout: {{share: 0.2}}}}
tokenizer: {{kind: wordpiece, vocab_size: 160}}
examples:
  pairs:
    length: 48
    layout: {{kind: pairs}}
    corruption: {{kind: masked, max_targets: 8}}
  packed:
    length: 48
    layout: {{kind: pairs}}
    corruption: {{kind: masked, max_targets: 8}}
    pack: true
  static:
    length: 48
    layout: {{kind: pairs}}
    corruption: {{kind: masked, max_targets: 8}}
    mode: static
model:
  family: bert
  vocab_size: 160
  hidden_size: 32
  num_layers: 1
  num_heads: 2
  intermediate_size: 64
  max_positions: 48
  dropout: 0.0
  attention_dropout: 0.0
objectives: [{{kind: masked_lm}}, {{kind: next_sentence}}]
optimizer: {{kind: lamb}}
schedule: {{kind: linear, warmup_steps: 2}}
phases: [{{examples: pairs, steps: 8, batch_rows: 16, learning_rate: 1e-2}}]
train:
  engine: local
  micro_batch_rows: 16
  log_every: 2
  evaluate_every: 4
  save_every: 4
  loader_workers: 0
tracking: {{mode: disabled}}
evaluation: {{max_rows: 50, micro_batch_rows: 16}}
output: {{directory: {place}/run}}
"""

Recipe = Callable[..., Run]


def _write_corpus(path: Path) -> None:
    """Documents of sentences in which the order of the words matters."""
    chooser = random.Random(0)
    names = ["Anna", "Bruno", "Clara", "David", "Emil"]
    places = ["garden", "kitchen", "harbour", "library", "village"]
    verbs = ["sees", "finds", "follows", "forgets", "paints"]

    def sentence() -> str:
        who, whom = chooser.sample(names, 2)
        return f"{who} {chooser.choice(verbs)} {whom} in the old {chooser.choice(places)}."

    documents = [
        " ".join(sentence() for _ in range(chooser.randint(4, 12))) + f" So ends tale {number}."
        for number in range(150)
    ]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Decodes the small recipe, prepared; each keyword adds overrides."""
    from preprocessing.commands import run_preparation

    place = tmp_path_factory.mktemp("small-run")
    _write_corpus(place / "corpus.jsonl")
    path = place / "small.yaml"
    path.write_text(RECIPE.format(place=place))

    def decode(overrides: Sequence[str] = ()) -> Run:
        return decode_run(load(path, overrides))

    for outcome in run_preparation(decode().preparation):
        assert outcome.status == "made"
    return decode


@pytest.fixture(scope="session")
def trained(recipe: Recipe) -> Run:
    """The small run after its eight steps; not to be written to."""
    from pipeline.training.start import start_training

    run = recipe()
    with mock.patch.dict(os.environ, {"OMP_NUM_THREADS": "1"}):
        start_training(run)
    return run
