"""AdamW: torch's, and as BERT was trained with it, without bias correction."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from configs.schema import config
from pipeline.optim.finite import FiniteOnly
from pipeline.optim.groups import DecayRule
from pipeline.optim.variants import Beta


@config
class AdamWConfig:
    """Adam with decoupled weight decay; BERT's has no bias correction."""

    kind: Literal["adamw"]
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0)] = 1e-6
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    bias_correction: bool = True
    rules: tuple[DecayRule, ...] = ()


class AdamW(FiniteOnly, torch.optim.AdamW):
    """torch's, that does not move where a gradient is not finite."""


class BertAdamW(AdamW):
    """AdamW that does not divide its moments by ``1 - beta^step``.

    Source: ``AdamWeightDecayOptimizer`` of google-research/bert, ``optimization.py``:

        w <- w - lr (m / (sqrt(v) + eps) + weight_decay w)

    torch's kernels compute, with ``c = 1 - beta^step`` of either moment,

        w <- w - lr' weight_decay' w - lr' (m / c1) / (sqrt(v / c2) + eps')

    which is the same for ``lr' = lr c1 / sqrt(c2)``, ``eps' = eps / sqrt(c2)`` and
    ``weight_decay' = weight_decay lr / lr'``. Every element is treated alike, so it is exact on
    the flat tensors of ZeRO too, and state and checkpoints are those of AdamW.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; the groups are those the caller knows again when it returns."""
        groups = self.param_groups
        self.param_groups = [part for group in groups for part in self._compensated(group)]
        try:
            loss: float | None = super().step(closure)
            return loss
        finally:
            self.param_groups = groups

    def _compensated(self, group: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The group's tensors by the number of steps they have seen, with settings for each."""
        beta1, beta2 = group["betas"]
        counts = self._counts(group["params"])
        in_order = sorted(group["params"], key=counts.__getitem__)
        for count, tensors in groupby(in_order, key=counts.__getitem__):
            correction1 = 1 - beta1 ** (count + 1)
            root2 = math.sqrt(1 - beta2 ** (count + 1))
            yield group | {
                "params": list(tensors),
                "lr": group["lr"] * correction1 / root2,
                "eps": group["eps"] / root2,
                "weight_decay": group["weight_decay"] * root2 / correction1,
            }

    def _counts(self, tensors: Sequence[Tensor]) -> dict[Tensor, int]:
        """Steps that each has seen; read all at once, for fused kernels keep them on the device."""
        begun = [tensor for tensor in tensors if self.state.get(tensor)]
        steps = [torch.as_tensor(self.state[tensor]["step"]) for tensor in begun]
        read = torch.stack(steps).tolist() if steps else []
        return dict.fromkeys(tensors, 0) | dict(zip(begun, map(int, read), strict=True))
