"""Transformer blocks: how attention and feed-forward are joined by residuals and norms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Concatenate, Literal, TypeAlias

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipeline.nn.compiling import compiled
from pipeline.nn.feed_forward import FeedForward

Block: TypeAlias = Callable[..., Any]
"""A module, or what computes the same."""
Call: TypeAlias = Callable[Concatenate[Block, Tensor, ...], Tensor]
"""How a stack computes a block from hidden states, and whatever else the block wants."""


class PostNormBlock(nn.Module):
    """Each part is followed by dropout, the residual, and then the norm.

        hidden = norm(hidden + dropout(attention(hidden)))
        hidden = norm(hidden + dropout(feed_forward(hidden)))

    Args:
        attention: called with the hidden states and all that the block is given beside them.
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
        self, hidden: Float[Tensor, "rows length hidden"], *seen: Any
    ) -> Float[Tensor, "rows length hidden"]:
        """The next hidden states.

        Args:
            seen: goes to the attention as it is: a mask; what is kept of earlier states; ...
        """
        hidden = self.attention_norm(hidden + self.dropout(self.attention(hidden, *seen)))
        output: Tensor = self.feed_forward_norm(hidden + self.dropout(self.feed_forward(hidden)))
        return output


class Stack(nn.ModuleList):
    """Blocks, each on the output of the one before.

    Where each wants something of its own, as the memory of its layer, a model calls them itself:
    ``hidden = stack.call(block, hidden, own)``.

    Attributes:
        strategy: computes a block's output while training; see :func:`keep`, :func:`recompute`
            and :class:`Compiled`.
    """

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        super().__init__(blocks)
        self.strategy: Call = keep

    @property
    def recomputes(self) -> bool:
        """Whether the backward pass computes whole blocks again."""
        strategy = self.strategy
        return (strategy.inner if isinstance(strategy, Compiled) else strategy) is recompute

    def call(self, block: nn.Module, hidden: Tensor, *seen: Any) -> Tensor:
        """A block's output."""
        return (self.strategy if self.training else keep)(block, hidden, *seen)

    def forward(
        self, hidden: Float[Tensor, "rows length hidden"], *seen: Any
    ) -> Float[Tensor, "rows length hidden"]:
        """The last block's output; each gets all that is ``seen``: a mask, encoded rows, ..."""
        for block in self:
            hidden = self.call(block, hidden, *seen)
        return hidden


def keep(block: Block, hidden: Tensor, *seen: Any) -> Tensor:
    """All that the backward pass needs is kept from the forward pass."""
    output: Tensor = block(hidden, *seen)
    return output


def recompute(block: Block, hidden: Tensor, *seen: Any) -> Tensor:
    """Only the block's input is kept; the backward pass computes it again, dropout included.

    Source: Chen et al. 2016, https://arxiv.org/abs/1604.06174. torch's non-reentrant form: the
    reentrant one, and DeepSpeed's, fail for shared blocks at ZeRO stages 2 and 3.
    """
    output: Tensor = checkpoint(block, hidden, *seen, use_reentrant=False)
    return output


class Compiled:
    """Blocks as compiled code, for shapes that stay as they are; one code for all alike blocks.

    A block is compiled as a whole or not at all: dropout draws differently in compiled code, and a
    step must not depend on what happened to be compiled before it.

    Attributes:
        inner: the strategy that is given the compiled block.
    """

    def __init__(self, inner: Call) -> None:
        self.inner = inner
        self._compiled: dict[Block, Block] = {}

    def __call__(self, block: Block, hidden: Tensor, *seen: Any) -> Tensor:
        """The block's output.

        Raises:
            ValueError: the shapes are too many.
        """
        if block not in self._compiled:
            self._compiled[block] = compiled(block, dynamic=False)
        return self.inner(self._compiled[block], hidden, *seen)


Checkpointing: TypeAlias = Literal["none", "selective", "full"]
"""What the backward pass computes again: nothing, what is cheap, or whole blocks."""


def save_memory(model: nn.Module, checkpointing: Checkpointing) -> None:
    """Let a model trade computation for its activations' memory.

    ``full`` keeps the input of each block and computes a third more. ``selective`` leaves out the
    widest activations, which are no products: a quarter of the memory, for a few per cent.
    """
    for module in model.modules():
        if isinstance(module, FeedForward):
            module.thrifty = checkpointing == "selective"
        elif isinstance(module, Stack) and checkpointing == "full":
            module.strategy = recompute


def compile_blocks(model: nn.Module) -> None:
    """Let all stacks of a model compute compiled blocks while training."""
    for module in model.modules():
        if isinstance(module, Stack):
            module.strategy = Compiled(module.strategy)
