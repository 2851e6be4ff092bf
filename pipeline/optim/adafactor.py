"""Adafactor: second moments by row and column, steps relative to the size of the weights."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field

from configs.schema import config
from pipeline.optim.finite import FiniteOnly
from pipeline.optim.groups import DecayRule

Positive = Annotated[float, Field(gt=0)]


@config
class AdafactorConfig:
    """Adafactor as torch has it; T5's with the schedule ``t5`` and a learning rate of 0.01.

    Shazeer and Stern 2018, https://arxiv.org/abs/1804.04235. A step moves a tensor by at most
    ``min(learning_rate, 1 / sqrt(step))`` of the root mean square of its weights. It needs tensors
    with rows and columns, so it runs at ZeRO stage 0 and on the local engine.

    Attributes:
        beta2_decay: the second moments forget at the rate ``step^beta2_decay``.
        eps: the least root of a second moment (T5 adds its square, 1e-30, to squared gradients),
            and the least root mean square that a tensor of weights counts with.
        clip: bound of the root mean square of a tensor's update.
        weight_decay: in units of the weight, times the learning rate.
        rules: which tensors decay.
    """

    kind: Literal["adafactor"]
    beta2_decay: Annotated[float, Field(lt=0)] = -0.8
    eps: tuple[Positive, Positive] = (1e-15, 1e-3)
    clip: Annotated[float, Field(ge=1)] = 1.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    rules: tuple[DecayRule, ...] = ()


class Adafactor(FiniteOnly, torch.optim.Adafactor):
    """torch's, that does not move where a gradient is not finite."""
