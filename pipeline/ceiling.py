"""What a device can do at best: the speed of large matrix products, measured where one trains."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from pipeline.nn.products import product

_SIZES = (512, 1024, 2048, 4096, 8192)
_LONG_ENOUGH = 0.004
"""Seconds of one product, after which larger ones are no faster."""
_ROUNDS = 4


def measure_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of square matrix products on this device, by the threads of this process.

    The best of several products of growing size; well under a second. Ranks that share a machine
    measure at the same time: what one reaches while the others rest, all together do not.

    Args:
        dtype: of the factors.
    """
    best = 0.0
    generator = torch.Generator(device).manual_seed(0)  # the training's draws stay as they are
    for size in _SIZES:
        # Not zeros: a GPU multiplies those faster than anything that is learnt.
        left, right = (
            torch.randn(size, size, generator=generator, device=device).to(dtype) for _ in range(2)
        )
        seconds = min(_seconds(left, right) for _ in range(1 + _ROUNDS))
        best = max(best, 2 * size**3 / seconds)
        if seconds > _LONG_ENOUGH:
            break
    return best


def _seconds(left: Tensor, right: Tensor) -> float:
    """Of one product, by the library that the model's products use."""
    if left.device.type != "cuda":
        begun = time.perf_counter()
        product(left, right)
        return time.perf_counter() - begun
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    product(left, right)
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000
