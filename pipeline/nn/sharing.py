"""Layers that share weights: the same modules stand at several places of a stack.

A shared Parameter is one tensor: it has one gradient, the sum over all places, one pair of
moments and one trust ratio. ``parameters()`` lists it once, under its first name; ``state_dict()``
has it under the name of every place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from pipeline.nn.blocks import PostNormBlock, Stack

Part: TypeAlias = Literal["attention", "ffn"]

PARTS: Mapping[Part, tuple[str, str]] = {
    "attention": ("attention", "attention_norm"),
    "ffn": ("feed_forward", "feed_forward_norm"),
}
"""The modules of a :class:`PostNormBlock` that a part is: what computes, and its norm."""


def group_of(layer: int, num_layers: int, num_groups: int) -> int:
    """The group of a layer, as transformers reckons it, in floats: 18 layers in 14 groups differ
    from floor(layer * groups / layers).
    """
    return int(layer / (num_layers / num_groups))


def first_layers(num_layers: int, num_groups: int) -> tuple[int, ...]:
    """The first layer of each layer's group.

    6 layers in 2 groups:   layer          0 1 2 3 4 5
                            first layer    0 0 0 3 3 3
    """
    groups = [group_of(layer, num_layers, num_groups) for layer in range(num_layers)]
    return tuple(groups.index(group) for group in groups)


def repeat_groups(groups: Stack, num_layers: int) -> Stack:
    """A stack of so many layers, in which each of ``groups`` is called several times in a row.

    Source: Lan et al. 2019 (ALBERT), https://arxiv.org/abs/1909.11942, section 3.1.
    """
    return Stack(groups[group_of(layer, num_layers, len(groups))] for layer in range(num_layers))


def share_part(stack: Stack, part: Part) -> Stack:
    """The same stack, in which all blocks have that part of the first one."""
    first, *others = stack
    assert isinstance(first, PostNormBlock)
    for block in others:
        for module in PARTS[part]:
            setattr(block, module, getattr(first, module))
    return stack
