from __future__ import annotations

import itertools
import time

import pytest
import torch
from torch import Tensor

from pipeline import ceiling
from pipeline.ceiling import measure_ceiling

CPU = torch.device("cpu")


def test_it_is_what_products_reach_and_disturbs_no_draw() -> None:
    """Within a factor of two of one product measured here, on a machine shared with others."""
    left = torch.randn(768, 768)
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    found = measure_ceiling(CPU, torch.float32)
    assert torch.equal(torch.randn(4), expected)

    def plain() -> float:
        begun = time.perf_counter()
        torch.mm(left, left)
        return time.perf_counter() - begun

    assert found > 0.5 * 2 * 768**3 / min(plain() for _ in range(5))


def test_sizes_grow_until_products_are_long_and_the_best_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A device of 100 GFLOP/s that stutters now and then."""
    sizes: list[int] = []
    stutters = itertools.cycle([1.0, 0.0, 0.5])

    def seconds(left: Tensor, right: Tensor) -> float:
        assert left.dtype == torch.bfloat16
        assert left.any()
        if len(left) not in sizes:
            sizes.append(len(left))
        return max(0.002, 2 * len(left) ** 3 / 1e11) + next(stutters)

    monkeypatch.setattr(ceiling, "_seconds", seconds)
    assert measure_ceiling(CPU, torch.bfloat16) == pytest.approx(1e11)
    assert sizes == [512, 1024]
