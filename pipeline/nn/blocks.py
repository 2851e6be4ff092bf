"""Transformer blocks: how attention and feed-forward are joined by residuals and norms."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn


class PostNormBlock(nn.Module):
    """Each part is followed by dropout, the residual, and then the norm.

        hidden = norm(hidden + dropout(attention(hidden)))
        hidden = norm(hidden + dropout(feed_forward(hidden)))

    Args:
        attention: called with the hidden states and the mask.
        feed_forward: called with the hidden states.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.1.
    """

    def __init__(
        self,
        attention: nn.Module,
        feed_forward: nn.Module,
        *,
        hidden_size: int,
        layer_norm_eps: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.attention_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.feed_forward = feed_forward
        self.feed_forward_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        hidden: Float[Tensor, "rows length hidden"],
        mask: Bool[Tensor, "rows 1 length length"] | None,
    ) -> Float[Tensor, "rows length hidden"]:
        """The next hidden states; ``mask`` goes to the attention as it is."""
        hidden = self.attention_norm(hidden + self.dropout(self.attention(hidden, mask)))
        output: Tensor = self.feed_forward_norm(hidden + self.dropout(self.feed_forward(hidden)))
        return output
