"""Held-out masked-LM loss of a checkpoint, beside three baselines on exactly the same targets.

The rows and masks are those of the validation while training. Losses are means over all targets,
in nats; the perplexity is e to the loss.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor

from pipeline.batch import IGNORED
from pipeline.data import RowSource, to_batch
from pipeline.evaluation.baselines import count_tokens, shuffle_context, unigram_log_probabilities
from pipeline.evaluation.checkpoints import load_model, newest
from pipeline.evaluation.fill import Sample, sample_sentences
from pipeline.fitting import keep_targets
from pipeline.objectives.task import PretrainingTask
from pipeline.opening import open_data
from pipeline.precision import autocast
from pipeline.settings import Run
from pipeline.training.checkpoints.checkpoint import read_origin
from preprocessing.arrangement import Arrays
from preprocessing.storage import InputError, write_json

EVALUATION_FILE = "evaluation.json"
EVALUATION_VERSION = 2
NUM_SAMPLES = 8
_LARGEST_EXPONENT = 700  # e to more is no float


@dataclass(frozen=True)
class ObjectiveResult:
    """What a model makes of one objective: nats per target, and the share of targets it has right.

    ``targets`` is how many there were.
    """

    targets: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class SetResult:
    """One validation set, in nats per target.

    Attributes:
        name: of the set.
        rows, targets: how much of it was scored.
        loss, perplexity, accuracy: of the model on masked tokens.
        others: by name, the objectives beside masked tokens that the set has targets for.
        uniform, unigram, shuffled: the losses of the baselines on the same targets.
        below_unigram, below_shuffled: by how much the model's loss is lower; the higher the better.
    """

    name: str
    rows: int
    targets: int
    loss: float
    perplexity: float
    accuracy: float
    uniform: float
    unigram: float
    shuffled: float
    below_unigram: float
    below_shuffled: float
    others: Mapping[str, ObjectiveResult] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As ``evaluation.json`` holds it."""
        return asdict(self)

    def __str__(self) -> str:
        others = "".join(
            f"; {name.replace('_', ' ')}: loss {other.loss:.3f}, {other.accuracy:.1%} right"
            for name, other in self.others.items()
        )
        return (
            f"{self.name}: loss {self.loss:.3f} (perplexity {self.perplexity:.1f}, "
            f"{self.accuracy:.1%} right), {self.below_unigram:.3f} below unigram, "
            f"{self.below_shuffled:.3f} below shuffled context{others}"
        )


@dataclass(frozen=True)
class Evaluation:
    """What ``evaluation.json`` holds.

    Attributes:
        checkpoint, step, weights: what was scored: its name, its steps, digest of its weights.
        max_rows: the bound on each set, None for all rows.
        sets, samples: the results.
    """

    checkpoint: str
    step: int
    weights: str
    max_rows: int | None
    sets: tuple[SetResult, ...]
    samples: tuple[Sample, ...]
    version: int = EVALUATION_VERSION


def evaluate(run: Run, checkpoint: Path | None = None) -> list[SetResult]:
    """Score a checkpoint (None: the newest) and write ``evaluation.json`` for the run.

    Each validation set is read up to ``evaluation.max_rows``. The file also holds some sentences
    with a masked word and what the model puts there.

    Raises:
        InputError: no checkpoint, no validation set, or no rows in one; data that is not whole.
        ConfigError: the checkpoint is another model's.
    """
    found = checkpoint or newest(run)
    task = load_model(run, found)
    data = keep_targets(open_data(run), task.objective_names)
    if not data.validation:
        raise InputError(
            f"{run.name}: there is nothing held out to evaluate on; name a set in "
            "corpus.validation, such as {heldout: {share: 0.02}}"
        )
    counts = [count_tokens(source.directory) for source in data.phases[-1].sets]
    log_probabilities = unigram_log_probabilities(np.sum(counts, axis=0))
    results = [
        score_set(run, task, name, source, log_probabilities)
        for name, source in data.validation.items()
        if "masked_lm" not in source.absent
    ]
    origin = read_origin(found)
    evaluation = Evaluation(
        checkpoint=found.name,
        step=origin.step,
        weights=origin.weights,
        max_rows=run.evaluation.max_rows,
        sets=tuple(results),
        samples=tuple(sample_sentences(run, task.model, NUM_SAMPLES)),
    )
    write_json(run.output.directory / EVALUATION_FILE, asdict(evaluation))
    return results


def read_evaluation(directory: Path) -> Evaluation | None:
    """The evaluation of a run directory, or None where there is none yet, or one that is too old.

    Raises:
        InputError: it is damaged or of a later version.
    """
    path = directory / EVALUATION_FILE
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if plain["version"] < EVALUATION_VERSION:
            return None
        if plain["version"] != EVALUATION_VERSION:
            raise ValueError(f"version {plain['version']}, not {EVALUATION_VERSION}")
        return TypeAdapter(Evaluation).validate_python(plain)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); evaluate again") from None


def score_set(
    run: Run,
    task: PretrainingTask,
    name: str,
    source: RowSource,
    log_probabilities: NDArray[np.float64],
) -> SetResult:
    """Score one validation set, given the unigram's logarithms ``[vocabulary]``.

    Raises:
        InputError: the set has no rows.
    """
    opened = source.open()
    rows, step = opened.rows, run.evaluation.micro_batch_rows
    num_rows = min(opened.num_rows, run.evaluation.max_rows or opened.num_rows)
    if not num_rows:
        raise InputError(
            f"{source.directory}: the validation set '{name}' has no rows; "
            "give it a larger share or more documents"
        )
    own = torch.zeros(len(task.objective_names), 3, dtype=torch.float64)
    shuffled = torch.zeros_like(own)
    unigram = 0.0
    for begin in range(0, num_rows, step):
        positions = range(begin, min(begin + step, num_rows))
        arrays = opened.arrays(positions)
        targets = arrays.targets["masked_lm"]
        real = targets.labels != IGNORED
        unigram -= float(log_probabilities[targets.labels[real]].sum())
        sequences = rows.read(0, np.arange(positions.start, positions.stop)).sequences
        inside = arrays.sequence_ids > 0
        seen = replace(sequences, tokens=arrays.ids[inside])
        places = (np.cumsum(inside) - 1)[targets.indices[real]]
        moved = arrays.ids.copy()
        moved[inside] = shuffle_context(seen, places, rows.special, seed=run.seed)
        own += statistics(run, task, arrays)
        shuffled += statistics(run, task, replace(arrays, ids=moved))
    sums = dict(zip(task.objective_names, own.tolist(), strict=True))
    total, count, correct = sums["masked_lm"]
    loss, unigram = total / count, unigram / count
    shuffled_loss = float(shuffled[task.objective_names.index("masked_lm"), 0]) / count
    return SetResult(
        name=name,
        rows=num_rows,
        targets=int(count),
        loss=loss,
        perplexity=math.exp(loss) if loss < _LARGEST_EXPONENT else math.inf,
        accuracy=correct / count,
        uniform=math.log(rows.special.size),
        unigram=unigram,
        shuffled=shuffled_loss,
        below_unigram=unigram - loss,
        below_shuffled=shuffled_loss - loss,
        others={
            other: ObjectiveResult(int(many), summed / many, right / many)
            for other, (summed, many, right) in sums.items()
            if other != "masked_lm" and many
        },
    )


@torch.no_grad()
def statistics(run: Run, task: PretrainingTask, arrays: Arrays) -> Tensor:
    """Sums ``[objectives, 3]`` of one micro-batch: loss, targets, right ones."""
    device = next(task.parameters()).device
    with autocast(run.train.precision, device):
        ones = torch.ones(len(task.objective_names), device=device)
        sums: Tensor = task(to_batch(arrays).to(device), ones)[1]
    return sums.double().cpu()
