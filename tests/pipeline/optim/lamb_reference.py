"""LAMB in fp64, written down from the paper and from nothing else, and the tensors to try it on."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.optim.variants import Variant


class ReferenceLamb:
    """Algorithm 2 of arXiv 1904.00962 over named whole tensors, with the known variants."""

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        variant: Variant,
        *,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        skips_zeros: bool = True,
    ) -> None:
        self.weights = {name: weight.detach().double().clone() for name, weight in weights.items()}
        self.first = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self.second = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self.ratios: dict[str, float] = {}
        self.variant, self.weight_decay, self.betas, self.eps = variant, weight_decay, betas, eps
        self.skips_zeros = skips_zeros
        self.steps = dict.fromkeys(self.weights, 0)

    def step(self, gradients: Mapping[str, Tensor], lr: float, clip: float = 0.0) -> None:
        self.ratios = {}
        gradients = {name: gradient.double() for name, gradient in gradients.items()}
        total = math.sqrt(sum(float((g * g).sum()) for g in gradients.values()))
        factor = clip / (total + 1e-6) if clip and total + 1e-6 > clip else 1.0
        for name, gradient in gradients.items():
            if bool((gradient != 0).any()) or not self.skips_zeros:
                self._move(name, gradient * factor, lr)

    def _move(self, name: str, g: Tensor, lr: float) -> None:
        w, (beta1, beta2) = self.weights[name], self.betas
        self.steps[name] += 1
        step = self.steps[name]
        m = self.first[name] = beta1 * self.first[name] + (1 - beta1) * g
        v = self.second[name] = beta2 * self.second[name] + (1 - beta2) * g * g
        if self.variant.bias_correction:
            m, v = m / (1 - beta1**step), v / (1 - beta2**step)
        decays = w.dim() > 1
        u = m / (v.sqrt() + self.eps) + (self.weight_decay * w if decays else 0)
        ratio = 1.0
        if decays or self.variant.adapt_without_decay:
            w_norm, u_norm = float(w.norm()), float(u.norm())
            if w_norm > 0 and u_norm > 0:
                ratio = w_norm / u_norm
                if self.variant.clamp is not None:
                    low, high = self.variant.clamp
                    ratio = max(low, min(high, ratio))
            self.ratios[name] = ratio
        self.weights[name] = w - lr * ratio * u


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected; what is no number is far off.

    Python's ``max`` passes over what is no number, so an error must never be that.
    """
    difference = float((found.double() - expected).norm())
    if math.isnan(difference):
        return math.inf
    return difference / max(float(expected.norm()), 1e-30) if difference else 0.0
