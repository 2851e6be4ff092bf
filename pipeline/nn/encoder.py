"""BERT's body, which many families share: post-norm blocks with biases everywhere."""

from __future__ import annotations

from pipeline.nn.activations import ActivationName, activation
from pipeline.nn.attention import ScaledDotProduct, SelfAttention
from pipeline.nn.blocks import PostNormBlock, Stack
from pipeline.nn.feed_forward import FeedForward


def encoder(
    *,
    num_layers: int,
    hidden_size: int,
    num_heads: int,
    intermediate_size: int,
    activation_name: ActivationName,
    layer_norm_eps: float,
    dropout: float,
    attention_dropout: float,
) -> Stack:
    """The blocks of Devlin et al. 2018, https://arxiv.org/abs/1810.04805."""
    return Stack(
        PostNormBlock(
            SelfAttention(hidden_size, num_heads, ScaledDotProduct(attention_dropout)),
            FeedForward(hidden_size, intermediate_size, activation(activation_name)),
            hidden_size=hidden_size,
            layer_norm_eps=layer_norm_eps,
            dropout=dropout,
        )
        for _ in range(num_layers)
    )


def check_heads(hidden_size: int, num_heads: int) -> None:
    """Raises:
    ValueError: the heads do not divide the width.
    """
    if hidden_size % num_heads:
        raise ValueError(f"hidden_size {hidden_size} is no multiple of num_heads {num_heads}")


def check_heads_of(outputs: tuple[str, ...], asked: list[str]) -> None:
    """Raises:
    ValueError: there are targets that a model has no head for.
    """
    unknown = [name for name in asked if name not in outputs]
    if unknown:
        raise ValueError(
            f"no head for {', '.join(unknown)}; this model predicts {', '.join(outputs)}"
        )
