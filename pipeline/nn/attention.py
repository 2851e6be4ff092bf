"""Self-attention: projections around a core, which says what is scored; a kernel computes it."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from pipeline.nn.attending import Kernel, compute_dtype
from pipeline.nn.products import Linear


class ScaledDotProduct(nn.Module):
    """The plain core: softmax(query key^T / sqrt(head_size)) value.

    Args:
        dropout: probability of dropping an attention weight while training.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.1.
    """

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(
        self,
        query: Float[Tensor, "rows heads queries head_size"],
        key: Float[Tensor, "rows heads keys head_size"],
        value: Float[Tensor, "rows heads keys head_size"],
        kernel: Kernel,
    ) -> Float[Tensor, "rows heads queries head_size"]:
        """Values mixed by the weights."""
        return kernel(query, key, value, dropout=self.dropout if self.training else 0.0)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"dropout={self.dropout}"


class SelfAttention(nn.Module):
    """Multi-head self-attention; ``query``, ``key``, ``value`` and ``output`` all have biases.

    Args:
        core: maps query, key and value of all heads, and the kernel, to the mixed values.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.2.
    """

    def __init__(self, hidden_size: int, num_heads: int, core: nn.Module) -> None:
        super().__init__()
        if hidden_size % num_heads:
            raise ValueError(f"hidden_size {hidden_size} is no multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.query = Linear(hidden_size, hidden_size)
        self.key = Linear(hidden_size, hidden_size)
        self.value = Linear(hidden_size, hidden_size)
        self.core = core
        self.output = Linear(hidden_size, hidden_size)

    def forward(
        self,
        hidden: Float[Tensor, "rows length hidden"],
        kernel: Kernel,
    ) -> Float[Tensor, "rows length hidden"]:
        """The mixed values of all heads, projected; ``kernel`` goes to the core as it is."""
        # Autocast would do so for each product anew, and the backward pass would keep all three.
        hidden = hidden.to(compute_dtype(hidden))
        query, key, value = (
            split_heads(project(hidden), self.num_heads)
            for project in (self.query, self.key, self.value)
        )
        mixed = self.core(query, key, value, kernel)
        projected: Tensor = self.output(merge_heads(mixed))
        return projected


def split_heads(
    hidden: Float[Tensor, "rows length hidden"], num_heads: int
) -> Float[Tensor, "rows heads length head_size"]:
    """Cut the width into heads; a view."""
    rows, length, hidden_size = hidden.shape
    return hidden.view(rows, length, num_heads, hidden_size // num_heads).transpose(1, 2)


def merge_heads(
    mixed: Float[Tensor, "rows heads length head_size"],
) -> Float[Tensor, "rows length hidden"]:
    """The inverse of :func:`split_heads`."""
    return mixed.transpose(1, 2).flatten(-2)
