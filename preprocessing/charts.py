"""What every chart needs: round ticks, numbers in words, and bars in a box of 100 by 100.

How a chart looks is the page's business. The box is stretched to the page, so that the labels,
which stand beside it as text, keep their size on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_MOST_LABELS = 8
_GAP = 0.12
"""Share of a bar's place that stays empty."""


@dataclass(frozen=True)
class Tick:
    """A label at ``at`` percent from the left or from the top."""

    at: float
    label: str


@dataclass(frozen=True)
class Bars:
    """A histogram as one SVG path; ``x_ticks`` stand at the borders of the bins."""

    path: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def bar_chart(borders: Sequence[str], counts: Sequence[int]) -> Bars:
    """Lay out the counts of adjoining bins.

    Args:
        borders: labels ``[bins + 1]`` of where the bins begin and end; some are left out where
            there are many.
        counts: ``[bins]``.

    >>> bar_chart(["0", "1", "2"], [1, 2]).x_ticks[1]
    Tick(at=50.0, label='1')
    """
    y_ticks = nice_ticks(0, max([*counts, 1]), 4)
    high = y_ticks[-1]
    width = 100 / max(1, len(counts))
    parts = []
    for place, count in enumerate(counts):
        if count:
            # What is there at all must be seen.
            height = max(0.6, 100 * count / high)
            left = place * width + width * _GAP / 2
            parts.append(f"M{left:.2f} 100V{100 - height:.2f}h{width * (1 - _GAP):.2f}V100z")
    step = math.ceil(max(1, len(counts)) / _MOST_LABELS)
    return Bars(
        "".join(parts),
        tuple(
            Tick(round(place * width, 2), label)
            for place, label in enumerate(borders)
            if place % step == 0
        ),
        tuple(Tick(round(100 - 100 * tick / high, 2), number(tick)) for tick in y_ticks),
    )


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About ``count`` multiples of 1, 2 or 5 times a power of ten that enclose ``[low, high]``.

    >>> nice_ticks(0.13, 0.92, 4)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    step = min((power * factor for factor in (1, 2, 5, 10)), key=lambda s: abs(span / s - count))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return [round(index * step, 12) for index in range(first, last + 1)]


def number(value: float) -> str:
    """A value in about three digits.

    >>> [number(value) for value in (0, 0.00315, 0.25, 7.709, 6e-5, 28961.9)]
    ['0', '0.00315', '0.25', '7.71', '6e-05', '28,962']
    """
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
