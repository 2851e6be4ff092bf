"""Compiled code that says so where it would stop being compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

Inputs = ParamSpec("Inputs")
Output = TypeVar("Output")

MOST_SHAPES = 64
"""For which something is compiled, 10 to 30 s on a CPU each; torch's own bound of 8 is soon passed
by phases and buckets of lengths."""


def compiled(
    function: Callable[Inputs, Output], *, dynamic: bool | None = None
) -> Callable[Inputs, Output]:
    """The function or module as a whole in compiled code; torch alone would fall back in silence.

    Args:
        dynamic: whether one code serves many shapes; left out, torch finds out.
    """
    whole: Callable[Inputs, Output] = torch.compile(  # type: ignore[call-overload]
        # Their annotations leave the limit out.
        function,
        dynamic=dynamic,
        fullgraph=True,
        recompile_limit=MOST_SHAPES,
    )

    def call(*inputs: Inputs.args, **named: Inputs.kwargs) -> Output:
        try:
            return whole(*inputs, **named)
        except torch._dynamo.exc.FailOnRecompileLimitHit as error:
            raise ValueError(
                f"this would be compiled for more than {MOST_SHAPES} shapes; use fewer lengths of "
                "rows (examples, micro_batch_rows), or train.compile: false"
            ) from error

    return call
