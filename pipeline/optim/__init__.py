"""Optimizers and schedules, and the one list of the optimizers.

A new optimizer is its file, a member of ``OptimizerConfig``, and a case of ``build_optimizer`` and
``describe_groups``.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias, assert_never

import torch
from pydantic import Field
from torch import nn

from pipeline.optim.adamw import AdamWConfig, BertAdamW
from pipeline.optim.groups import (
    ParameterRow,
    decays,
    restore_settings,
    settings_of,
    shape_of,
    trained,
)
from pipeline.optim.lamb import Lamb
from pipeline.optim.schedules import Schedule, ScheduleConfig, build_schedule
from pipeline.optim.variants import LambConfig

__all__ = [
    "AdamWConfig",
    "BertAdamW",
    "Lamb",
    "LambConfig",
    "OptimizerConfig",
    "ParameterRow",
    "Schedule",
    "ScheduleConfig",
    "build_optimizer",
    "build_schedule",
    "describe_groups",
    "restore_settings",
    "settings_of",
]

OptimizerConfig: TypeAlias = Annotated[LambConfig | AdamWConfig, Field(discriminator="kind")]
"""The ``optimizer`` section of a recipe."""


def build_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """An optimizer with a group of tensors that decay and a group of those that do not.

    Its learning rate is 0 until the caller sets ``group["lr"]``, before every step.

    Raises:
        ValueError: nothing in the model is trained.
    """
    named = trained(model)
    if not named:
        raise ValueError("the model has no tensor with requires_grad=True to train")
    groups = [
        group
        for group in (
            _group(config, [item for item in named if decays(item[1])], decay=True),
            _group(config, [item for item in named if not decays(item[1])], decay=False),
        )
        if group["params"]
    ]
    match config:
        case LambConfig():
            variant = config.variant
            return Lamb(
                groups,
                betas=config.betas,
                eps=config.eps,
                bias_correction=variant.bias_correction,
                clamp=variant.clamp,
            )
        case AdamWConfig():
            kind = torch.optim.AdamW if config.bias_correction else BertAdamW
            return kind(groups, lr=0.0, betas=config.betas, eps=config.eps, fused=True)
        case _:
            assert_never(config)


def describe_groups(config: OptimizerConfig, model: nn.Module) -> list[ParameterRow]:
    """How each trained tensor is treated, in the model's order: the table shown at the start."""
    return [
        ParameterRow(
            name=name,
            shape=shape_of(tensor),
            decays=decays(tensor) and config.weight_decay > 0,
            adapted=_adapted(config, decay=decays(tensor)),
        )
        for name, tensor in trained(model)
    ]


def _group(
    config: OptimizerConfig, named: list[tuple[str, nn.Parameter]], *, decay: bool
) -> dict[str, Any]:
    group: dict[str, Any] = {
        "params": named,
        "weight_decay": config.weight_decay if decay else 0.0,
    }
    if isinstance(config, LambConfig):
        group["adapt"] = _adapted(config, decay=decay)
    return group


def _adapted(config: OptimizerConfig, *, decay: bool) -> bool:
    return isinstance(config, LambConfig) and (decay or config.variant.adapt_without_decay)
