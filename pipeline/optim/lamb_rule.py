"""LAMB's arithmetic, on rows of memory: what :mod:`pipeline.optim.lamb` runs over a block table.

``w``, ``m``, ``v``, ``g`` are rows of weights, moments and gradients; every row belongs to one
tensor and has its scalars beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def update(
    w: Float[Tensor, "rows width"],
    m: Float[Tensor, "rows width"],
    v: Float[Tensor, "rows width"],
    g: Float[Tensor, "rows width"],
    rule: Float[Tensor, "rows 5"],
) -> tuple[Tensor, Tensor, Tensor]:
    """The new ``m`` and ``v``, and ``u``.

    The rule of a row: ``1 - beta1``, ``1 - beta2``, a scale, ``eps`` and ``weight_decay``. The
    bias corrections ``c = 1 - beta^step`` of the moments are in the scale and ``eps``:

        m / c1 / (sqrt(v / c2) + eps) = sqrt(c2) / c1 * m / (sqrt(v) + sqrt(c2) eps)
    """
    rate1, rate2, scale, eps, weight_decay = rule.unsqueeze(2).unbind(1)
    m = m + rate1 * (g - m)
    v = (1 - rate2) * v + rate2 * (g * g)
    return m, v, scale * m / (v.sqrt() + eps) + weight_decay * w


def squares(
    w: Float[Tensor, "rows width"],
    m: Float[Tensor, "rows width"],
    v: Float[Tensor, "rows width"],
    g: Float[Tensor, "rows width"],
    rule: Float[Tensor, "rows 5"],
) -> Float[Tensor, "rows 4"]:
    """Of a row: ``sum w^2``, ``sum u^2``, whether it has a gradient, whether one is not finite."""
    _, _, u = update(w, m, v, g, rule)
    peak = g.abs().amax(1)  # not a number, if one is none
    flags = (peak != 0).to(w.dtype), (~peak.isfinite()).to(w.dtype)
    return torch.stack([(w * w).sum(1), (u * u).sum(1), *flags], dim=1)


def apply(
    w: Float[Tensor, "rows width"],
    m: Float[Tensor, "rows width"],
    v: Float[Tensor, "rows width"],
    g: Float[Tensor, "rows width"],
    scalars: Float[Tensor, "rows 7"],
) -> None:
    """``w <- w - step_size u``, and the new moments, in place.

    A row's rule is followed by its step size, and by 0 if it does not move at all.
    """
    new_m, new_v, u = update(w, m, v, g, scalars[:, :5])
    step_size, moves = scalars[:, 5:6], scalars[:, 6:] != 0
    w.copy_(torch.where(moves, w - step_size * u, w))
    m.copy_(torch.where(moves, new_m, m))
    v.copy_(torch.where(moves, new_v, v))


def trust_ratio(
    norms: Float[Tensor, "tensors 2"], clamp: Float[Tensor, "tensors 2"]
) -> Float[Tensor, " tensors"]:
    """``|w| / |u|`` within its bounds; 1 where either norm is 0."""
    weight_norm, update_norm = norms.unbind(1)
    lowest, highest = clamp.unbind(1)
    ratio = (weight_norm / update_norm).clamp(lowest, highest)
    return torch.where((norms > 0).all(1), ratio, 1.0)


@dataclass(frozen=True)
class Settings:
    """What the groups say of their tensors, by tensor and in fp64."""

    lr: Float[Tensor, " tensors"]
    betas: Float[Tensor, "tensors 2"]
    eps: Float[Tensor, " tensors"]
    weight_decay: Float[Tensor, " tensors"]
    clamp: Float[Tensor, "tensors 2"]
    adapt: Bool[Tensor, " tensors"]
    bias_correction: Bool[Tensor, " tensors"]
    step: Float[Tensor, " tensors"]

    @classmethod
    def of(
        cls, groups: Iterable[tuple[Mapping[str, Any], int, int]], device: torch.device
    ) -> Settings:
        """Those of groups at a step, each for a number of tensors. No device is waited for."""
        rows: list[tuple[float, ...]] = []
        for group, step, num_tensors in groups:
            own = (
                group["lr"],
                *group["betas"],
                group["eps"],
                group["weight_decay"],
                *(group["clamp"] or (0.0, math.inf)),
                group["adapt"],
                group["bias_correction"],
                step,
            )
            rows += [own] * num_tensors
        table = torch.tensor(rows, dtype=torch.float64).to(device, non_blocking=True)
        return cls(
            lr=table[:, 0],
            betas=table[:, 1:3],
            eps=table[:, 3],
            weight_decay=table[:, 4],
            clamp=table[:, 5:7],
            adapt=table[:, 7] != 0,
            bias_correction=table[:, 8] != 0,
            step=table[:, 9],
        )

    def rule(self, sat_out: Int[Tensor, " tensors"]) -> Float[Tensor, "tensors 5"]:
        """For :func:`update`, of tensors that sat out so many steps."""
        corrections = 1 - self.betas ** (self.step - sat_out)[:, None]
        c1, c2 = torch.where(self.bias_correction[:, None], corrections, 1.0).unbind(1)
        rate1, rate2 = (1 - self.betas).unbind(1)
        scale, eps = c2.sqrt() / c1, c2.sqrt() * self.eps
        return torch.stack([rate1, rate2, scale, eps, self.weight_decay], dim=1)
