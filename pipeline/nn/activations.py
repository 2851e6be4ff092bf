"""Activation functions by the names that published configurations use."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias, assert_never

import torch.nn.functional as F
from torch import Tensor

Activation: TypeAlias = Callable[[Tensor], Tensor]
ActivationName = Literal["gelu", "gelu_new", "relu"]


def activation(name: ActivationName) -> Activation:
    """``gelu`` is the exact one (erf), ``gelu_new`` its tanh approximation.

    The two differ by up to 4.7e-4, so a model keeps the one that it was trained with.

    Source: Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415.
    """
    match name:
        case "gelu":
            return F.gelu
        case "gelu_new":
            return partial(F.gelu, approximate="tanh")
        case "relu":
            return F.relu
        case _:
            assert_never(name)
