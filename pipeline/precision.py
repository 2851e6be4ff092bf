"""``train.precision`` by name, and what it means to torch."""

from __future__ import annotations

import contextlib
from typing import Literal, TypeAlias

import torch

Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def dtype(precision: str) -> torch.dtype:
    """What products are computed in."""
    return _DTYPES[precision]


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Products in that precision around weights in fp32."""
    lower = dtype(precision)
    return torch.autocast(device.type, lower, enabled=lower != torch.float32)
