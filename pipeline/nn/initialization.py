"""Initial weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import torch
from torch import nn

Whole: TypeAlias = Callable[[Sequence[nn.Parameter]], AbstractContextManager[Any]]
"""A context in which tensors that the ranks keep in parts are whole, and may be written to."""


@torch.no_grad()
def initialize(model: nn.Module, std: float, *, whole: Whole = nullcontext) -> None:
    """Draw the weights of all linear and embedding modules anew; biases 0, norms 1 and 0.

    The normal distribution is cut at two ``std``, which leaves a deviation of 0.88 ``std``, as
    TensorFlow's ``truncated_normal_initializer`` has it. A tied weight is drawn once, by the
    embedding that owns it.

    Draws follow from the seed that torch's generator was last given, whatever was drawn since, and
    are made on the CPU: a model that is taken apart while it is built, on another device, begins
    with the same weights. Only one module is whole at a time.
    """
    generator = torch.Generator().manual_seed(torch.initial_seed())
    for module in model.modules():
        if not isinstance(module, nn.Linear | nn.Embedding | nn.LayerNorm):
            continue
        with whole(list(module.parameters(recurse=False))):
            if isinstance(module, nn.LayerNorm):
                module.reset_parameters()
                continue
            drawn = torch.empty(module.weight.shape)
            nn.init.trunc_normal_(drawn, std=std, a=-2 * std, b=2 * std, generator=generator)
            module.weight.copy_(drawn)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
