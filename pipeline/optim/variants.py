"""The variants of LAMB in use, and the section of a recipe that picks one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from configs.schema import config
from pipeline.optim.groups import LambRule

Preset: TypeAlias = Literal["google", "paper", "apex", "nvlamb", "deepspeed"]
Clamp: TypeAlias = tuple[float, float]
Beta: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class Variant:
    """What implementations of LAMB differ in.

    Attributes:
        bias_correction: divide the moments by ``1 - beta^step``, as Adam does.
        clamp: bounds of the trust ratio.
        adapt_without_decay: scale also the tensors that do not decay (biases, norms) by their
            trust ratio; otherwise theirs is 1.
    """

    bias_correction: bool
    clamp: Clamp | None
    adapt_without_decay: bool


VARIANTS: Mapping[Preset, Variant] = {
    "google": Variant(bias_correction=False, clamp=None, adapt_without_decay=False),
    "paper": Variant(bias_correction=True, clamp=None, adapt_without_decay=True),
    "apex": Variant(bias_correction=True, clamp=None, adapt_without_decay=False),
    "nvlamb": Variant(bias_correction=True, clamp=None, adapt_without_decay=True),
    "deepspeed": Variant(bias_correction=False, clamp=(0.01, 0.3), adapt_without_decay=True),
}
"""``google``: the released code of the authors. ``paper``: Algorithm 2. ``apex``, ``nvlamb``:
NVIDIA's two. ``deepspeed``: the settings of its BERT record. All but ``paper`` are meant to be run
with gradients clipped to a global norm of 1, which is the engine's business."""


@config
class LambConfig:
    """LAMB; a preset, and what shall differ from it (null is the preset's)."""

    kind: Literal["lamb"]
    preset: Preset = "google"
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0)] = 1e-6
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    bias_correction: bool | None = None
    clamp: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(gt=0)]] | None = None
    adapt_without_decay: bool | None = None
    rules: tuple[LambRule, ...] = ()

    def __post_init__(self) -> None:
        if self.clamp is not None and self.clamp[0] > self.clamp[1]:
            raise ValueError(f"clamp is (lowest, highest), not {self.clamp}")

    @property
    def variant(self) -> Variant:
        """The preset with what differs from it."""
        own = {
            "bias_correction": self.bias_correction,
            "clamp": self.clamp,
            "adapt_without_decay": self.adapt_without_decay,
        }
        given: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
        return replace(VARIANTS[self.preset], **given)
