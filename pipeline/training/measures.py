"""What a step came to, and how fast it was."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from pipeline.training.engine import StepOutcome


@dataclass(frozen=True)
class StepMeasures:
    """What one step came to; tensors stay on the device until they are looked at.

    Attributes:
        statistics: per objective: summed loss, real targets, right ones; of all ranks.
        counts: of all ranks; see :class:`pipeline.training.feeding.Fed`.
    """

    statistics: Float[Tensor, "objectives 3"]
    counts: Int[Tensor, " objectives_and_5"]
    learning_rate: float
    outcome: StepOutcome

    @property
    def overflowed(self) -> bool:
        """Whether a lower loss scale may help: not where the forward pass is to blame."""
        return self.outcome.overflow and bool(self.statistics[:, 0].isfinite().all())

    def values(self, names: tuple[str, ...], weights: list[float]) -> dict[str, float]:
        """The record of the step; ``fingerprint`` digests the examples it saw."""
        scale = self.outcome.loss_scale
        return {
            **summarize(self.statistics, names, weights),
            "learning_rate": self.learning_rate,
            "gradient_norm": self.outcome.gradient_norm,
            **({} if scale is None else {"loss_scale": scale}),
            "fingerprint": int(self.counts[-3]),
        }

    def speeds(self, seconds: float, ceiling: float) -> dict[str, float]:
        """Tokens a second without padding and with it, and the shares of the devices' ceiling.

        ``mfu`` (model FLOPs utilization) counts real work, ``hfu`` (hardware FLOPs utilization) all
        that is spent; see :mod:`pipeline.flops`.

        Args:
            seconds: that the step took.
            ceiling: FLOP/s of all ranks together.

        Source of the names: Chowdhery et al. 2022, https://arxiv.org/abs/2204.02311, section 4.1.
        """
        tokens, slots, _, real, spent = self.counts[-5:].tolist()
        return {
            "tokens_per_second": tokens / seconds,
            "slots_per_second": slots / seconds,
            "mfu": real / seconds / ceiling,
            "hfu": spent / seconds / ceiling,
        }


def summarize(statistics: Tensor, names: tuple[str, ...], weights: list[float]) -> dict[str, float]:
    """Means by objective, and the total loss, from sums ``[objectives, 3]``; those without a
    target have no mean.
    """
    values: dict[str, float] = {}
    total = 0.0
    for name, weight, (loss, count, correct) in zip(
        names, weights, statistics.tolist(), strict=True
    ):
        if count:
            values[f"{name}_loss"] = loss / count
            values[f"{name}_accuracy"] = correct / count
            total += weight * loss / count
    return {"loss": total, **values}
