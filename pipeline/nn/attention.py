"""Self-attention: projections around a core, where the core decides what the scores are."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


class ScaledDotProduct(nn.Module):
    """The plain core: softmax(query key^T / sqrt(head_size)) value, fused by torch.

    Args:
        dropout: probability of dropping an attention weight while training.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.1.
    """

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(
        self,
        query: Float[Tensor, "rows heads length head_size"],
        key: Float[Tensor, "rows heads length head_size"],
        value: Float[Tensor, "rows heads length head_size"],
        mask: Bool[Tensor, "rows 1 length length"] | None,
    ) -> Float[Tensor, "rows heads length head_size"]:
        """Values mixed by the weights; ``mask`` is true where a query may attend, None everywhere.

        Every query must have a key.
        """
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0
        )

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"dropout={self.dropout}"


class SelfAttention(nn.Module):
    """Multi-head self-attention; ``query``, ``key``, ``value`` and ``output`` all have biases.

    Args:
        core: maps query, key and value of all heads, and the mask, to the mixed values.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.2.
    """

    def __init__(self, hidden_size: int, num_heads: int, core: nn.Module) -> None:
        super().__init__()
        if hidden_size % num_heads:
            raise ValueError(f"hidden_size {hidden_size} is no multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.core = core
        self.output = nn.Linear(hidden_size, hidden_size)

    def forward(
        self,
        hidden: Float[Tensor, "rows length hidden"],
        mask: Bool[Tensor, "rows 1 length length"] | None,
    ) -> Float[Tensor, "rows length hidden"]:
        """The mixed values of all heads, projected; ``mask`` goes to the core as it is."""
        query, key, value = (
            split_heads(project(hidden), self.num_heads)
            for project in (self.query, self.key, self.value)
        )
        mixed = self.core(query, key, value, mask)
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
