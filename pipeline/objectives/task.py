"""A model and its objectives as one module: from a micro-batch to the scalar that is minimised."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from configs.schema import ConfigError
from pipeline.batch import Batch
from pipeline.nn.model import PretrainingModel
from pipeline.objectives.base import Objective


class PretrainingTask(nn.Module):
    """What an engine trains.

    Attributes:
        model: the family.
        objective_names: the order of denominators and statistics.

    Raises:
        ConfigError: an objective asks for what the model does not predict, or an output of the
            model is left without objective, so that its weights would never move.
    """

    def __init__(self, model: PretrainingModel, objectives: Mapping[str, Objective]) -> None:
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

    def forward(
        self, batch: Batch, denominators: Float[Tensor, " objectives"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "objectives 3"]]:
        """The loss of one micro-batch, as a share of its step.

            loss = sum over objectives of weight * summed loss / denominator

        With the number of real targets in the whole step as denominators, the gradients of all
        micro-batches on all ranks add up to that of the step's exact mean. A micro-batch without
        real targets gives 0 and zero gradients; a denominator of 0 counts as 1. Where one is
        infinite the objective is not trained: it adds exactly nothing, and the gradients of what
        only it trains are exactly zero, even if its loss is not finite.

        Returns:
            The loss, and per objective (summed loss, real targets, right ones), detached, fp32.
        """
        logits = self.model(batch)
        left_out = denominators.isinf()
        losses, shares = [], []
        for (name, objective), silent, denominator in zip(
            self.objectives.items(), left_out, denominators.clamp(min=1), strict=True
        ):
            if objective.probability < 1:
                # Both hold the same values; the gradient goes to the one that is taken.
                logits[name] = torch.where(silent, logits[name].detach(), logits[name])
            loss = objective(logits, batch)
            losses.append(loss)
            shares.append((objective.weight * loss.total / denominator).masked_fill(silent, 0))
        statistics = [torch.stack((loss.total, loss.count, loss.correct)) for loss in losses]
        return torch.stack(shares).sum(), torch.stack(statistics).detach()
