"""A model and its objectives as one module: from a micro-batch to the scalar that is minimised."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from configs.schema import ConfigError
from pipeline.batch import IGNORED, Batch, Memory
from pipeline.nn.model import LABELS, MEMORY, Outputs, PretrainingModel
from pipeline.nn.scores import silenced
from pipeline.objectives.base import Objective


class Computed(NamedTuple):
    """What comes of a micro-batch.

    Attributes:
        loss: its share of the step's, differentiable.
        statistics: per objective (summed loss, real targets, right ones), detached, fp32.
        memory: what the model carries on, detached; empty where it carries nothing.
    """

    loss: Float[Tensor, ""]
    statistics: Float[Tensor, "objectives 3"]
    memory: Memory


class PretrainingTask(nn.Module):
    """What an engine trains.

    Args:
        sometimes: objectives that some steps leave out, beside those whose probability says so.

    Attributes:
        model: the family.
        objective_names: the order of denominators and statistics.

    Raises:
        ConfigError: an objective asks for what the model does not predict, or an output of the
            model is left without objective, so that its weights would never move.
    """

    def __init__(
        self,
        model: PretrainingModel,
        objectives: Mapping[str, Objective],
        *,
        sometimes: Collection[str] = (),
    ) -> None:
        super().__init__()
        problems = [
            f"objectives: {name}: the model does not predict it (it predicts: "
            f"{', '.join(model.outputs)})"
            for name in objectives
            if name not in model.outputs
        ] + [
            f"objectives: {name}: the model predicts it and nothing trains it; "
            "add the objective, or leave the head out of the model"
            for name in model.outputs
            if name not in objectives
        ]
        if problems:
            raise ConfigError(problems)
        self.model = model
        self.objectives = dict(objectives)
        self.objective_names = tuple(objectives)
        self._sometimes = {name for name, one in objectives.items() if one.probability < 1}
        self._sometimes.update(sometimes)

    def forward(self, batch: Batch, denominators: Float[Tensor, " objectives"]) -> Computed:
        """The loss of one micro-batch, as a share of its step.

            loss = sum over objectives of weight * summed loss / denominator

        With the number of real targets in the whole step as denominators, the gradients of all
        micro-batches on all ranks add up to that of the step's exact mean. A micro-batch without
        real targets gives 0 and zero gradients; a denominator of 0 counts as 1. Where one is
        infinite the objective is not trained: it adds exactly nothing, and the gradients of what
        only it trains are exactly zero, even if its loss is not finite.
        """
        outputs = self.model(batch)
        scores = {name: outputs[name] for name in self.objectives}
        batch = _relabelled(batch, _beginning(LABELS, outputs))
        left_out = denominators.isinf()
        losses, shares = [], []
        for (name, objective), silent, denominator in zip(
            self.objectives.items(), left_out, denominators.clamp(min=1), strict=True
        ):
            if name in self._sometimes:
                scores[name] = silenced(scores[name], silent)
            loss = objective(scores, batch)
            losses.append(loss)
            shares.append((objective.weight * loss.total / denominator).masked_fill(silent, 0))
        statistics = [torch.stack((loss.total, loss.count, loss.correct)) for loss in losses]
        memory = {name: kept.detach() for name, kept in _beginning(MEMORY, outputs).items()}
        return Computed(torch.stack(shares).sum(), torch.stack(statistics).detach(), memory)


def _beginning(prefix: str, outputs: Outputs) -> dict[str, Tensor]:
    """Outputs whose name begins so, by the rest of it."""
    return {
        name.removeprefix(prefix): kept
        for name, kept in outputs.items()
        if name.startswith(prefix) and isinstance(kept, Tensor)
    }


def _relabelled(batch: Batch, made: Mapping[str, Tensor]) -> Batch:
    """The batch with the labels that the model made; those of padding stay ``IGNORED``."""
    if not made:
        return batch
    targets = dict(batch.targets)
    for name, labels in made.items():
        given = targets[name].labels
        own = labels.detach().to(given.dtype).masked_fill(given == IGNORED, IGNORED)
        targets[name] = replace(targets[name], labels=own)
    return replace(batch, targets=targets)
