"""Initial weights."""

from __future__ import annotations

from torch import nn


def initialize(model: nn.Module, std: float) -> None:
    """Draw the weights of all linear and embedding modules anew; biases 0, norms 1 and 0.

    The normal distribution is cut at two ``std``, which leaves a deviation of 0.88 ``std``, as
    TensorFlow's ``truncated_normal_initializer`` has it. A tied weight is drawn once, by the
    embedding that owns it. Draws come from torch's global generator.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        if isinstance(module, nn.Linear | nn.LayerNorm) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
