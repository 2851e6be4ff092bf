import torch
from torch import nn

from pipeline.nn.activations import activation
from pipeline.nn.heads import SequenceHead, TokenHead, pick
from pipeline.nn.scores import logits


def test_places_are_positions_of_the_flattened_batch() -> None:
    hidden = torch.arange(12.0).view(2, 3, 2)
    assert pick(hidden, torch.tensor([0, 4, 4])).tolist() == [[0, 1], [8, 9], [8, 9]]


def test_the_decoder_shares_the_table_as_one_parameter() -> None:
    words = nn.Embedding(11, 6)
    head = TokenHead(words, hidden_size=8, activation=activation("gelu"), layer_norm_eps=1e-12)
    assert head.decoder.weight is words.weight
    model = nn.ModuleDict({"words": words, "head": head})
    assert sum(p is words.weight for p in model.parameters()) == 1
    scores = logits(head(torch.randn(2, 3, 8), torch.tensor([1, 5, 0, 0])))
    assert scores.shape == (4, 11)
    scores.sum().backward()
    assert words.weight.grad is not None
    assert words.weight.grad.abs().sum() > 0


def test_the_sequence_head_pools_by_tanh() -> None:
    head = SequenceHead(hidden_size=1, num_classes=2)
    with torch.no_grad():
        head.pooler.weight.fill_(2.0)
        head.pooler.bias.fill_(0.5)
        head.classifier.weight.copy_(torch.tensor([[1.0], [-3.0]]))
        head.classifier.bias.copy_(torch.tensor([0.0, 1.0]))
    hidden = torch.tensor([[[9.0], [0.25]]])
    pooled = torch.tanh(torch.tensor(1.0))
    expected = torch.stack([pooled, 1 - 3 * pooled]).unsqueeze(0)
    torch.testing.assert_close(head(hidden, torch.tensor([1])), expected)
