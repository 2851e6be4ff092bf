import torch
from torch import Tensor, nn

from pipeline.nn.blocks import PostNormBlock, Stack, save_memory


class Constant(nn.Module):
    """Stands in for attention or feed-forward."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = torch.tensor(values)

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.values.expand_as(hidden)


def test_each_part_is_added_and_then_normed() -> None:
    block = PostNormBlock(
        Constant(1.0, -1.0), Constant(0.0, 4.0), hidden_size=2, layer_norm_eps=0.0, dropout=0.0
    )
    # (1, 1) + (1, -1) = (2, 0) -> (1, -1); + (0, 4) = (1, 3) -> (-1, 1)
    assert block(torch.ones(1, 1, 2), None).tolist() == [[[-1.0, 1.0]]]


def test_dropout_is_on_the_parts_and_never_on_the_residual() -> None:
    torch.manual_seed(0)
    block = PostNormBlock(
        Constant(*[1.0] * 64),
        Constant(*[0.0] * 64),
        hidden_size=64,
        layer_norm_eps=0.0,
        dropout=0.5,
    )
    block.attention_norm = nn.Identity()  # type: ignore[assignment]
    block.feed_forward_norm = nn.Identity()  # type: ignore[assignment]
    output = block(torch.full((4, 64, 64), 10.0), None)
    assert set(output.unique().tolist()) == {10.0, 12.0}
    # 16384 draws: the deviation of the mean is 0.004.
    assert abs((output == 10).float().mean().item() - 0.5) < 0.016
    block.eval()
    assert (block(torch.full((1, 2, 64), 10.0), None) == 11).all()


def test_a_stack_gives_each_block_the_output_of_the_one_before() -> None:
    stack = Stack([Scaled(3.0), Scaled(0.5)])
    mask = torch.tensor([[[[True]]]])
    assert stack(torch.ones(1, 1, 2), mask).tolist() == [[[1.5, 1.5]]]
    assert [block.mask is mask for block in stack] == [True, True]


def test_recomputed_blocks_run_once_more_in_the_backward_pass() -> None:
    model = nn.ModuleDict({"encoder": Stack([Scaled(3.0), Scaled(0.5)])})
    save_memory(model, "full")
    hidden = torch.ones(1, 1, 2, requires_grad=True)
    output = model["encoder"](hidden, None)
    assert [block.calls for block in model["encoder"]] == [1, 1]
    output.sum().backward()
    assert [block.calls for block in model["encoder"]] == [2, 2]
    assert hidden.grad is not None
    assert hidden.grad.tolist() == [[[1.5, 1.5]]]


class Scaled(nn.Module):
    """Multiplies, and remembers how it was called."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))
        self.calls = 0
        self.mask: Tensor | None = None

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        self.calls += 1
        self.mask = mask
        return hidden * self.factor
