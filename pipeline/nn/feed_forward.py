"""The part of a block that works on each position alone."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipeline.nn.activations import Activation


class FeedForward(nn.Module):
    """``down(activation(up(hidden)))``, both with biases.

    Attributes:
        thrifty: keep for the backward pass what goes into the activation only, and compute the
            activation again: a quarter of a block's memory for one elementwise operation.
    """

    def __init__(self, hidden_size: int, intermediate_size: int, activation: Activation) -> None:
        super().__init__()
        self.up = nn.Linear(hidden_size, intermediate_size)
        self.activation = activation
        self.down = nn.Linear(intermediate_size, hidden_size)
        self.thrifty = False

    def forward(
        self, hidden: Float[Tensor, "rows length hidden"]
    ) -> Float[Tensor, "rows length hidden"]:
        """The transformed positions."""
        up: Tensor = self.up(hidden)
        if not self.thrifty:
            return self._finish(up)
        # Stops as soon as it has what is needed: the product is not computed again.
        finished: Tensor = checkpoint(
            self._finish, up, use_reentrant=False, preserve_rng_state=False
        )
        return finished

    def _finish(self, up: Tensor) -> Tensor:
        transformed: Tensor = self.down(self.activation(up))
        return transformed
