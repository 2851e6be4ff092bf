from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

import preprocessing.charts
from pipeline import charts
from pipeline.charts import Series, line_chart, thin
from preprocessing.charts import nice_ticks


def test_the_examples_in_the_docstrings_hold():
    results = [doctest.testmod(module) for module in (charts, preprocessing.charts)]
    assert [result.attempted for result in results] == [1, 3]
    assert not any(result.failed for result in results)


def test_points_stand_where_their_values_are():
    chart = line_chart("loss", [Series("a", [(0, 8.0), (50, 6.0), (100, 4.0)])], [("level", 5.0)])
    (curve,) = chart.curves
    assert [(tick.at, tick.label) for tick in chart.y_ticks] == [
        (100, "4"), (75, "5"), (50, "6"), (25, "7"), (0, "8"),
    ]  # fmt: skip
    assert curve.line == "M0.0 0.0 L50.0 50.0 L100.0 100.0"
    assert curve.dots == "M0.0 0.0h0 M50.0 50.0h0 M100.0 100.0h0"
    assert curve.last == "4"
    assert [(level.at, level.label) for level in chart.levels] == [(75, "level 5")]


def test_values_that_are_not_finite_are_left_out():
    points = [(1, 2.0), (2, float("nan")), (3, float("inf")), (4, 3.0)]
    (curve,) = line_chart("x", [Series("a", points)]).curves
    assert curve.line.count("L") == 1
    assert line_chart("x", [Series("a", [(1, float("nan"))])]).curves == ()


def test_long_series_are_thinned_to_means_and_say_so():
    chart = line_chart("x", [Series("a", [(step, float(step % 2)) for step in range(4000)])])
    assert chart.points_averaged == 10
    (curve,) = chart.curves
    assert curve.line.count(" L") == 399
    assert curve.dots == ""
    assert thin([(1, 4.0), (2, 6.0), (3, 1.0)], 2) == [(1.5, 5.0), (3.0, 1.0)]


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_enclose_and_are_few(low, span):
    ticks = nice_ticks(low, low + span, 4)
    slack = 1e-6 * max(1.0, abs(low), span)
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + span - slack
    assert 2 <= len(ticks) <= 10


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0])
def test_a_constant_has_room_around_it(value):
    chart = line_chart("x", [Series("a", [(1, value), (2, value)])])
    assert len(chart.y_ticks) >= 2
    assert 0 <= float(chart.curves[0].line.split()[0][1:]) <= 100
