import math

import pytest
import torch

from pipeline.nn.activations import activation


def test_gelu_is_exact_and_gelu_new_its_tanh_approximation() -> None:
    points = torch.linspace(-4, 4, 81, dtype=torch.float64)
    exact = [x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in points.tolist()]
    approximate = [
        x * 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        for x in points.tolist()
    ]
    assert activation("gelu")(points).tolist() == pytest.approx(exact, abs=1e-14)
    assert activation("gelu_new")(points).tolist() == pytest.approx(approximate, abs=1e-14)
    assert activation("relu")(points).tolist() == [max(x, 0.0) for x in points.tolist()]


def test_the_two_gelus_differ_by_the_known_amount() -> None:
    points = torch.linspace(-6, 6, 100_001, dtype=torch.float64)
    difference = (activation("gelu")(points) - activation("gelu_new")(points)).abs().max()
    assert difference.item() == pytest.approx(4.73e-4, abs=1e-6)
