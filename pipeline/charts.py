"""The geometry of a line chart: where curves, levels and ticks stand in a box of 100 by 100.

How it looks is the template's business. The box is stretched to the page, so that the labels,
which stand beside it as text, keep their size on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from preprocessing.charts import Tick, nice_ticks, number

Point = tuple[float, float]

MOST_POINTS = 400
_FEW_POINTS = 40  # up to so many, each point is also marked


@dataclass(frozen=True)
class Series:
    """Points ``(step, value)`` under a name."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Curve:
    """A series as SVG paths; ``last`` is its newest value in words."""

    name: str
    last: str
    line: str
    dots: str


@dataclass(frozen=True)
class Chart:
    """Everything a template needs to draw one chart; empty ``curves`` mean there is nothing."""

    title: str
    curves: tuple[Curve, ...]
    levels: tuple[Tick, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    points_averaged: int


def line_chart(
    title: str, series: Sequence[Series], levels: Sequence[tuple[str, float]] = ()
) -> Chart:
    """Lay out series over steps, with horizontal ``levels`` to compare them with.

    Values that are not finite are left out. Long series are thinned to the means of consecutive
    points; ``points_averaged`` says of how many.
    """
    finite = [
        Series(one.name, [point for point in one.points if math.isfinite(point[1])])
        for one in series
    ]
    finite = [one for one in finite if one.points]
    if not finite:
        return Chart(title, (), (), (), (), 1)
    averaged = max(1, math.ceil(max(len(one.points) for one in finite) / MOST_POINTS))
    thinned = [Series(one.name, thin(one.points, averaged)) for one in finite]
    steps = [step for one in thinned for step, _ in one.points]
    values = [value for one in thinned for _, value in one.points]
    x_ticks = nice_ticks(0.0, max(steps), 5)
    y_ticks = nice_ticks(
        min([*values, *(value for _, value in levels)]),
        max([*values, *(value for _, value in levels)]),
        4,
    )
    # Steps end where the data end; values have room up to the outer ticks.
    right = max(*steps, 1.0)
    low, high = y_ticks[0], y_ticks[-1]

    def x(step: float) -> float:
        return round(100 * step / right, 2)

    def y(value: float) -> float:
        return round(100 * (high - value) / (high - low), 2)

    curves = []
    for one in thinned:
        places = [(x(step), y(value)) for step, value in one.points]
        marks = places if len(places) <= _FEW_POINTS else ()
        curves.append(
            Curve(
                name=one.name,
                last=number(one.points[-1][1]),
                line="M" + " L".join(f"{left} {top}" for left, top in places),
                dots=" ".join(f"M{left} {top}h0" for left, top in marks),
            )
        )
    return Chart(
        title,
        tuple(curves),
        tuple(Tick(y(value), f"{name} {number(value)}") for name, value in levels),
        tuple(Tick(x(tick), f"{tick:,.0f}") for tick in x_ticks if tick <= right),
        tuple(Tick(y(tick), number(tick)) for tick in y_ticks),
        averaged,
    )


def thin(points: Sequence[Point], size: int) -> list[Point]:
    """Means of every ``size`` consecutive points, the last group perhaps smaller.

    >>> thin([(1, 4.0), (2, 6.0), (3, 1.0)], 2)
    [(1.5, 5.0), (3.0, 1.0)]
    """
    groups = [points[begin : begin + size] for begin in range(0, len(points), size)]
    return [
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    ]
