"""What every benchmark shares: alternating measurements, the machine, and how results are told."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# Ahead of this folder, whose preprocessing.py must not stand in for the package of its name.
sys.path.insert(0, str(Path(__file__).parents[1]))


def alternate(
    work: Mapping[str, Callable[[], int]], *, rounds: int
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Units per second of each, measured in turns; medians, and all measurements.

    Args:
        work: name -> a function that does some work and returns how many units it did.
        rounds: measurements of each, after one that does not count.
    """
    speeds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds + 1):
        for name, function in work.items():
            begun = time.perf_counter()
            units = function()
            if turn:
                speeds[name].append(units / (time.perf_counter() - begun))
    return {name: statistics.median(values) for name, values in speeds.items()}, speeds


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        model = names[0] if names else model
    except OSError:
        pass
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }


def tell(ratios: Mapping[str, float], figures: Mapping[str, float], *, as_json: bool) -> None:
    """Print the result; with ``as_json`` as one object on the last line."""
    for name, value in {**figures, **ratios}.items():
        print(f"{name:<40}{value:>14,.2f}")
    if as_json:
        result = {"machine": machine(), "ratios": dict(ratios), "figures": dict(figures)}
        print(json.dumps(result))
