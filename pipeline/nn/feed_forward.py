"""The part of a block that works on each position alone."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from pipeline.nn.activations import Activation


class FeedForward(nn.Module):
    """``down(activation(up(hidden)))``, both with biases."""

    def __init__(self, hidden_size: int, intermediate_size: int, activation: Activation) -> None:
        super().__init__()
        self.up = nn.Linear(hidden_size, intermediate_size)
        self.activation = activation
        self.down = nn.Linear(intermediate_size, hidden_size)

    def forward(
        self, hidden: Float[Tensor, "rows length hidden"]
    ) -> Float[Tensor, "rows length hidden"]:
        """The transformed positions."""
        transformed: Tensor = self.down(self.activation(self.up(hidden)))
        return transformed
