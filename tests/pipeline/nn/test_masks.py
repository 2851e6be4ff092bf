import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from pipeline.nn.masks import dense, hides_nothing, same_sequence

SEQUENCE_IDS = torch.tensor([[1, 1, 2, 0], [1, 1, 1, 1]])


def test_attention_stays_within_the_sequence_and_padding_sees_padding() -> None:
    mask = dense(same_sequence(SEQUENCE_IDS), rows=2, length=4)
    packed = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    full = [[1, 1, 1, 1]] * 4
    assert mask.shape == (2, 1, 4, 4)
    assert mask.squeeze(1).int().tolist() == [packed, full]


def test_no_query_is_left_without_a_key() -> None:
    sequence_ids = torch.randint(0, 4, (8, 32), generator=torch.Generator().manual_seed(0))
    assert dense(same_sequence(sequence_ids), 8, 32).any(-1).all()


def test_the_mask_is_left_out_exactly_where_it_hides_nothing() -> None:
    assert hides_nothing(torch.ones(3, 5, dtype=torch.long))
    assert not hides_nothing(SEQUENCE_IDS)
    assert not hides_nothing(SEQUENCE_IDS[:1])
    assert not hides_nothing(torch.tensor([[1, 1, 1, 0]]))


def test_no_answer_is_waited_for_on_other_devices() -> None:
    assert not hides_nothing(torch.ones(3, 5, dtype=torch.long, device="meta"))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_takes_the_same_function() -> None:
    generator = torch.Generator().manual_seed(0)
    sequence_ids = torch.tensor([[1] * 50 + [2] * 70 + [0] * 8, [1] * 128])
    query, key, value = torch.randn(3, 2, 4, 128, 16, generator=generator)
    mask = same_sequence(sequence_ids)
    block_mask = create_block_mask(mask, B=2, H=None, Q_LEN=128, KV_LEN=128, device="cpu")
    flexible = flex_attention(query, key, value, block_mask=block_mask)
    plain = scaled_dot_product_attention(query, key, value, attn_mask=dense(mask, 2, 128))
    torch.testing.assert_close(flexible, plain, atol=1e-6, rtol=0)  # measured: 4.2e-7
