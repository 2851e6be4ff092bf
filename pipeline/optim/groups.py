"""Which tensors decay and adapt, and the groups that say so.

Matrices decay; biases and the gains of norms, which have one axis, do not. What LAMB adapts follows
from that and its preset. Rules of a recipe come before both, the first that matches a tensor's
name (as it stands in checkpoints; of a tied tensor the first):

    rules:
      - {match: "embeddings.segment.*", decay: false}
      - {match: "*.bias", adapt: true}
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from configs.schema import ConfigError, config

Settings: TypeAlias = tuple[dict[str, Any], ...]
"""What an optimizer's groups say, without their tensors, rates and counts."""

_CHANGING = ("params", "lr", "step")


@config
class DecayRule:
    """Whether the tensors decay whose names match (``*``, ``?``, ``[...]`` as in a shell)."""

    match: str
    decay: bool


@config
class LambRule:
    """Whether the tensors decay and adapt whose names match; null is what is usual.

    What is usual for ``adapt`` follows from whether the tensor decays, by this rule or without.
    """

    match: str
    decay: bool | None = None
    adapt: bool | None = None

    def __post_init__(self) -> None:
        if self.decay is None and self.adapt is None:
            raise ValueError("a rule says decay or adapt, or both")


Rule: TypeAlias = DecayRule | LambRule


@dataclass(frozen=True)
class ParameterRow:
    """A trained tensor and how it is treated.

    Attributes:
        name: the first of its names in the model.
        shape: of the whole tensor.
        decays: the weight decay of the optimizer applies to it.
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


def first_matches(rules: Sequence[Rule], names: Sequence[str]) -> dict[str, Rule]:
    """The rule of every name that one matches: the first.

    Raises:
        ConfigError: a rule comes to nothing.
    """
    chosen: dict[str, Rule] = {}
    problems = []
    for number, rule in enumerate(rules):
        matched = [name for name in names if fnmatchcase(name, rule.match)]
        left = [name for name in matched if name not in chosen]
        chosen |= dict.fromkeys(left, rule)
        where = f"optimizer.rules.{number}.match: '{rule.match}'"
        if not matched:
            close = difflib.get_close_matches(rule.match, names, n=3, cutoff=0)
            problems.append(f"{where} is the name of no trained tensor; near: {', '.join(close)}")
        elif not left:
            problems.append(f"{where} comes too late: earlier rules match all of its tensors")
    if problems:
        raise ConfigError(problems)
    return chosen


def settings_of(optimizer: torch.optim.Optimizer) -> Settings:
    """What the groups say now; take it before ``deepspeed.initialize``."""
    return tuple(
        {key: value for key, value in group.items() if key not in _CHANGING}
        for group in optimizer.param_groups
    )


def restore_settings(optimizer: torch.optim.Optimizer, settings: Settings) -> None:
    """Put this run's settings back after a checkpoint was loaded, which brings its own along."""
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)
