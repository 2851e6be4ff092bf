"""A line on standard error every few seconds: where the training is, and when it will be done."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

_SECONDS = 5.0


class Progress:
    """Progress of one training, told by rank 0."""

    def __init__(self, total_steps: int) -> None:
        self._total = total_steps
        self._begun: tuple[float, int] | None = None
        self._told = 0.0

    def tell(self, step: int, values: Mapping[str, float]) -> None:
        """Print a line, unless one was printed a moment ago."""
        now = time.monotonic()
        begun, first = self._begun = self._begun or (now, step)
        if now - self._told < _SECONDS and step < self._total:
            return
        self._told = now
        left = ""
        if step > first:
            seconds = (now - begun) / (step - first) * (self._total - step)
            left = f", {int(seconds) // 60}:{int(seconds) % 60:02d} left"
        print(
            f"step {step}/{self._total}: loss {values['loss']:.3f}, "
            f"{values['tokens_per_second']:,.0f} tokens/s, "
            f"mfu {values['mfu']:.0%}{left}",
            file=sys.stderr,
            flush=True,
        )
