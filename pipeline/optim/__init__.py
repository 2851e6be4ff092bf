"""Optimizers and schedules, and the one list of the optimizers.

A new optimizer is its file, a member of ``OptimizerConfig``, and a case of ``build_optimizer``. All
but LAMB come from libraries. Every one of them changes nothing in a step in which any gradient on
any rank is not finite, and says so (``applied``); under DeepSpeed ``bind`` is called once, right
after ``deepspeed.initialize``.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias, assert_never

import torch
from pydantic import Field
from torch import nn

from pipeline.optim.adafactor import Adafactor, AdafactorConfig
from pipeline.optim.adamw import AdamW, AdamWConfig, BertAdamW
from pipeline.optim.groups import (
    LambRule,
    ParameterRow,
    decays,
    first_matches,
    restore_settings,
    settings_of,
    shape_of,
    trained,
)
from pipeline.optim.lamb import Lamb
from pipeline.optim.lion import Lion, LionConfig
from pipeline.optim.schedules import Schedule, ScheduleConfig, build_schedule
from pipeline.optim.variants import LambConfig

__all__ = [
    "Adafactor",
    "AdafactorConfig",
    "AdamW",
    "AdamWConfig",
    "BertAdamW",
    "Lamb",
    "LambConfig",
    "Lion",
    "LionConfig",
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

OptimizerConfig: TypeAlias = Annotated[
    LambConfig | AdamWConfig | LionConfig | AdafactorConfig, Field(discriminator="kind")
]
"""The ``optimizer`` section of a recipe."""


def build_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """An optimizer with a group for each treatment that tensors of the model get.

    Its learning rate is 0 until the caller sets ``group["lr"]``, before every step.

    Raises:
        ValueError: nothing in the model is trained.
        ConfigError: a rule matches no tensor of the model.
    """
    groups = _groups(config, model)
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
            kind = AdamW if config.bias_correction else BertAdamW
            return kind(groups, betas=config.betas, eps=config.eps, fused=True)
        case LionConfig():
            return Lion(groups, betas=config.betas)
        case AdafactorConfig():
            return Adafactor(groups, beta2_decay=config.beta2_decay, eps=config.eps, d=config.clip)
        case _:
            assert_never(config)


def describe_groups(config: OptimizerConfig, model: nn.Module) -> list[ParameterRow]:
    """How each trained tensor is treated, in the model's order.

    Raises:
        ConfigError: a rule matches no tensor of the model.
    """
    named = trained(model)
    rules = first_matches(config.rules, [name for name, _ in named])
    rows = []
    for name, tensor in named:
        rule = rules.get(name)
        decay = decays(tensor) if rule is None or rule.decay is None else rule.decay
        adapted = False
        if isinstance(config, LambConfig):
            adapted = decay or config.variant.adapt_without_decay
            if isinstance(rule, LambRule) and rule.adapt is not None:
                adapted = rule.adapt
        rows.append(ParameterRow(name, shape_of(tensor), decay, adapted))
    return rows


def _groups(config: OptimizerConfig, model: nn.Module) -> list[dict[str, Any]]:
    """Named tensors with the same treatment, those that decay first."""
    named = trained(model)
    if not named:
        raise ValueError("the model has no tensor with requires_grad=True to train")
    by_treatment: dict[tuple[bool, bool], list[tuple[str, nn.Parameter]]] = {}
    for item, row in zip(named, describe_groups(config, model), strict=True):
        by_treatment.setdefault((row.decays, row.adapted), []).append(item)
    return [
        {
            "params": by_treatment[decay, adapted],
            "lr": 0.0,
            "weight_decay": config.weight_decay if decay else 0.0,
        }
        | ({"adapt": adapted} if isinstance(config, LambConfig) else {})
        for decay, adapted in sorted(by_treatment, reverse=True)
    ]
