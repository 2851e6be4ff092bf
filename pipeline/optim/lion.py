"""Lion: the sign of a moment, one moment a weight."""

from __future__ import annotations

from typing import Annotated, Literal

import lion_pytorch
from pydantic import Field

from configs.schema import config
from pipeline.optim.finite import FiniteOnly
from pipeline.optim.groups import DecayRule
from pipeline.optim.variants import Beta


@config
class LionConfig:
    """Lion with decoupled weight decay.

    Chen et al. 2023, https://arxiv.org/abs/2302.06675: a rate 3 to 10 times below AdamW's, and a
    weight decay as many times above. Every element is treated alike, so it is exact on the flat
    tensors of ZeRO.
    """

    kind: Literal["lion"]
    betas: tuple[Beta, Beta] = (0.9, 0.99)
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    rules: tuple[DecayRule, ...] = ()


class Lion(FiniteOnly, lion_pytorch.Lion):  # type: ignore[misc]
    """lucidrains' lion-pytorch, that does not move where a gradient is not finite."""
