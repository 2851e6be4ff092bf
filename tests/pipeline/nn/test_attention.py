import math

import pytest
import torch
from torch import Tensor

from pipeline.nn.attending import Dense
from pipeline.nn.attention import ScaledDotProduct, SelfAttention, merge_heads, split_heads
from pipeline.nn.masks import dense, same_sequence


def written_out(attention: SelfAttention, hidden: Tensor, mask: Tensor) -> Tensor:
    """Softmax attention, one head after the other."""
    size = hidden.shape[-1] // attention.num_heads
    query, key, value = attention.query(hidden), attention.key(hidden), attention.value(hidden)
    heads = []
    for start in range(0, hidden.shape[-1], size):
        part = slice(start, start + size)
        scores = query[..., part] @ key[..., part].mT / math.sqrt(size)
        weights = scores.masked_fill(~mask.squeeze(1), -torch.inf).softmax(-1)
        heads.append(weights @ value[..., part])
    return attention.output(torch.cat(heads, dim=-1))


def test_attention_is_the_published_formula() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(24, 3, ScaledDotProduct(0.0)).double()
    hidden = torch.randn(2, 7, 24, dtype=torch.float64)
    mask = dense(same_sequence(torch.tensor([[1, 1, 1, 2, 2, 0, 0], [1] * 7])), 2, 7)
    expected = written_out(attention, hidden, mask)
    torch.testing.assert_close(attention(hidden, Dense(mask)), expected, atol=1e-14, rtol=0)


def test_heads_are_cut_and_joined_without_change() -> None:
    hidden = torch.arange(24.0).view(1, 2, 12)
    heads = split_heads(hidden, 3)
    assert heads.shape == (1, 3, 2, 4)
    assert heads[0, 1, 0].tolist() == [4, 5, 6, 7]
    assert torch.equal(merge_heads(heads), hidden)


def test_attention_dropout_drops_the_stated_share_while_training_only() -> None:
    core = ScaledDotProduct(0.25)
    query = key = torch.zeros(8, 4, 128, 16)
    value = torch.eye(128)[:, :16].expand(8, 4, 128, 16)
    torch.manual_seed(0)
    weights = core(query, key, value, Dense(None))  # 16 of the 128 uniform weights of every query
    dropped = (weights == 0).float().mean().item()
    # 65536 draws: the deviation of the mean is 0.0017.
    assert dropped == pytest.approx(0.25, abs=0.007)
    kept = weights[weights != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / 128 / 0.75))
    core.eval()
    assert (core(query, key, value, Dense(None)) == 1 / 128).all()


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="10 is no multiple of num_heads 3"):
        SelfAttention(10, 3, ScaledDotProduct(0.0))
