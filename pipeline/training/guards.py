"""What the losses say of a training: that it leads nowhere, that it diverges, that it spikes.

Every rule is a pure function of the newest losses (and of the lowest mean so far), which stand in
every checkpoint: a resumed run judges as the undisturbed one would have.

The loss of a step is that of all ranks. Steps that were passed over have none.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.sections import DivergenceRule, GuardsConfig, NotBelowRule, SpikeConfig, StopRule


@dataclass(frozen=True)
class Spike:
    """Steps ``[first, end)`` whose losses stand out from the median of those before them."""

    first: int
    end: int
    losses: tuple[float, ...]
    median: float


class Guard:
    """The losses of one training, its steps without update, and what follows from them.

    Args:
        stop_if: rules that end it.
        settings: of steps that go wrong.
        standing: what :meth:`plain` said at the checkpoint it goes on from; empty at the start.
    """

    def __init__(
        self,
        stop_if: Sequence[StopRule],
        settings: GuardsConfig,
        standing: Mapping[str, Any],
    ) -> None:
        self._stop_if = stop_if
        self._spike = settings.spike
        self._max_skipped = settings.max_skipped
        self.needs_losses = bool(stop_if) or settings.spike is not None
        longest = [rule.over for rule in stop_if]
        if settings.spike:
            longest.append(settings.spike.window + settings.spike.patience)
        self._kept = max([2, *longest])
        self.restore(standing)

    def restore(self, standing: Mapping[str, Any]) -> None:
        """Go back to what stood in a checkpoint."""
        self._steps: list[int] = list(standing.get("steps", ()))
        self._losses: list[float] = list(standing.get("losses", ()))
        self._lowest: dict[int, float] = {
            int(over): mean for over, mean in standing.get("lowest", {}).items()
        }
        self.skipped_steps: int = standing.get("skipped_steps", 0)
        self._in_a_row: int = standing.get("in_a_row", 0)

    def plain(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "steps": self._steps,
            "losses": self._losses,
            "lowest": {str(over): mean for over, mean in self._lowest.items()},
            "skipped_steps": self.skipped_steps,
            "in_a_row": self._in_a_row,
        }

    def applied(self) -> None:
        """A step was taken."""
        self._in_a_row = 0

    def failed(self) -> bool:
        """A step had to be passed over; whether there were too many in a row."""
        self.skipped_steps += 1
        self._in_a_row += 1
        return self._in_a_row > self._max_skipped

    def see(self, step: int, loss: float) -> None:
        """Add the loss of the newest step (counted from 0)."""
        self._steps = [*self._steps, step][-self._kept :]
        self._losses = [*self._losses, loss][-self._kept :]
        for rule in self._stop_if:
            if isinstance(rule, DivergenceRule) and len(self._losses) >= rule.over:
                mean = statistics.fmean(self._losses[-rule.over :])
                self._lowest[rule.over] = min(mean, self._lowest.get(rule.over, mean))

    def reason_to_stop(self) -> str | None:
        """Why the run should end after the newest step; None where it should not."""
        for rule in self._stop_if:
            match rule:
                case NotBelowRule():
                    reason = not_below(rule, self._steps, self._losses)
                case DivergenceRule():
                    reason = diverged(rule, self._losses, self._lowest.get(rule.over))
            if reason:
                return reason
        return None

    def spike(self) -> Spike | None:
        """The spike that the newest losses are."""
        return find_spike(self._spike, self._steps, self._losses) if self._spike else None


def not_below(rule: NotBelowRule, steps: Sequence[int], losses: Sequence[float]) -> str | None:
    """Judge a :class:`NotBelowRule` by the losses of ``steps``, after the last of them.

    With ``loss: 7.0, step: 4, over: 2`` and losses 9, 8, 7.5, 6.7 of steps 0, 1, 2, 3 the mean is
    7.1: stop. Where step 3 was passed over, the next one that was not decides.
    """
    done = [step + 1 for step in steps[-2:]]
    if done[-1] < rule.step or (len(done) > 1 and done[0] >= rule.step):
        return None
    mean = statistics.fmean(losses[-rule.over :])
    if mean < rule.loss:
        return None
    return f"the loss is {mean:.4f} after {done[-1]:,} steps, not below {rule.loss:g}"


def diverged(rule: DivergenceRule, losses: Sequence[float], lowest: float | None) -> str | None:
    """Judge a :class:`DivergenceRule`; ``lowest`` of the means over ``rule.over`` losses.

    With ``factor: 1.5, over: 2`` and losses 4, 2, 2, 3, 4 the means are 3, 2, 2.5, 3.5, the
    lowest 2, and the last one more than 1.5 times that: stop.
    """
    if lowest is None:
        return None
    mean = statistics.fmean(losses[-rule.over :])
    if mean <= rule.factor * lowest:
        return None
    return (
        f"the loss diverges: its mean over {rule.over} steps is {mean:.4f} and was {lowest:.4f}, "
        f"more than {rule.factor:g} times less"
    )


def find_spike(
    settings: SpikeConfig, steps: Sequence[int], losses: Sequence[float]
) -> Spike | None:
    """The spike that the last ``patience`` of the losses of ``steps`` are.

    With ``factor: 2, window: 3, patience: 2`` and losses 2, 3, 2, 5, 9 the median of the three
    is 2, and both last ones are above 4. Fewer losses before them than ``window`` say nothing.
    """
    last = losses[-settings.patience :]
    before = losses[: -settings.patience][-settings.window :]
    if len(before) < settings.window:
        return None
    median = statistics.median(before)
    if min(last) <= settings.factor * median:
        return None
    return Spike(steps[-settings.patience], steps[-1] + 1, tuple(last), median)
