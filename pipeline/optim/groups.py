"""Which tensors decay, and what DeepSpeed's checkpoints do to the groups that say so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Settings: TypeAlias = tuple[dict[str, Any], ...]
"""What an optimizer's groups say, without their tensors, rates and counts."""

_CHANGING = ("params", "lr", "step")


@dataclass(frozen=True)
class ParameterRow:
    """A trained tensor and how it is treated.

    Attributes:
        name: the first of its names in the model.
        shape: of the whole tensor.
        decays: weight decay applies.
        adapted: its update is scaled by a trust ratio.
    """

    name: str
    shape: tuple[int, ...]
    decays: bool
    adapted: bool


def trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The tensors that are trained, tied ones once and under their first name."""
    return [(name, tensor) for name, tensor in model.named_parameters() if tensor.requires_grad]


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    """The shape of the whole tensor, also where ZeRO stage 3 has taken it apart already."""
    return tuple(getattr(tensor, "ds_shape", tensor.shape))


def decays(tensor: Tensor) -> bool:
    """Matrices decay; biases and the gains of norms, which have one axis, do not."""
    return len(shape_of(tensor)) > 1


def settings_of(optimizer: torch.optim.Optimizer) -> Settings:
    """What the groups say now; take it before ``deepspeed.initialize``."""
    return tuple(
        {key: value for key, value in group.items() if key not in _CHANGING}
        for group in optimizer.param_groups
    )


def restore_settings(optimizer: torch.optim.Optimizer, settings: Settings) -> None:
    """Undo what loading a checkpoint may have done to the groups; call it after every load.

    A universal checkpoint at stage 3 gives all groups the settings of the first, so that biases
    decay, and all flat tensors one and the same ``step`` tensor, which is then counted up once for
    each of them (DeepSpeed 0.19).
    """
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)
    for state in optimizer.state.values():
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].clone()
