"""The part of a block that works on each position alone."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from pipeline.nn.activations import Activation
from pipeline.nn.products import Linear


class FeedForward(nn.Module):
    """``down(activation(up(hidden)))``, both with biases.

    Attributes:
        thrifty: keep for the backward pass what goes into the activation only, and compute the
            activation again: a quarter of a block's memory for one elementwise operation.
    """

    def __init__(self, hidden_size: int, intermediate_size: int, activation: Activation) -> None:
        super().__init__()
        self.up = Linear(hidden_size, intermediate_size)
        self.activation = activation
        self.down = Linear(intermediate_size, hidden_size)
        self.thrifty = False

    def forward(
        self, hidden: Float[Tensor, "rows length hidden"]
    ) -> Float[Tensor, "rows length hidden"]:
        """The transformed positions."""
        up: Tensor = self.up(hidden)
        if self.thrifty and torch.compiler.is_compiling():  # which leaves out what is not needed
            compiled: Tensor = checkpoint(self._finish, up, use_reentrant=False)
            return compiled
        if not self.thrifty:
            return self._finish(up)
        activated = self.activation(up)
        memory = activated.untyped_storage()._cdata

        def keep(tensor: Tensor) -> Tensor | torch.Size:
            return tensor.shape if tensor.untyped_storage()._cdata == memory else tensor

        def find(kept: Tensor | torch.Size) -> Tensor:
            if isinstance(kept, Tensor):
                return kept
            with torch.no_grad():
                return self.activation(up).view(kept)

        with saved_tensors_hooks(keep, find):
            transformed: Tensor = self.down(activated)
        return transformed

    def _finish(self, up: Tensor) -> Tensor:
        transformed: Tensor = self.down(self.activation(up))
        return transformed
