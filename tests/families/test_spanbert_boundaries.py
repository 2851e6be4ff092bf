"""What only SpanBERT has: predictions from the two tokens around a span."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from family_cases import FAMILIES
from own_heads import boundaries
from torch import nn

from configs.schema import ConfigError, load
from pipeline.batch import IGNORED, Targets
from pipeline.fitting import fit
from pipeline.flops import cost, targets
from pipeline.huggingface.proof import make_probe
from pipeline.models import build_model
from pipeline.models.spanbert import SpanBertConfig
from pipeline.nn.activations import activation
from pipeline.nn.heads import SpanBoundaryHead
from pipeline.nn.scores import logits
from pipeline.objectives import build_objectives
from pipeline.objectives.span_boundary import SpanBoundary, SpanBoundaryConfig
from pipeline.objectives.task import PretrainingTask
from pipeline.opening import open_data
from pipeline.settings import decode_run

TINY = FAMILIES["spanbert"].tiny


def head_of(words: nn.Embedding) -> SpanBoundaryHead:
    torch.manual_seed(0)
    return SpanBoundaryHead(
        words,
        hidden_size=6,
        max_index=4,
        index_size=3,
        activation=activation("gelu"),
        layer_norm_eps=1e-12,
    )


@pytest.mark.parametrize(
    ("width", "by_hand"),
    [
        # the table; from 2 * width + 200 to width; its norm; width to width; its norm; the bias
        (768, 15 * 200 + 1736 * 768 + 768 + 1536 + 768 * 768 + 768 + 1536 + 28996),
        (1024, 15 * 200 + 2248 * 1024 + 1024 + 2048 + 1024 * 1024 + 1024 + 2048 + 28996),
    ],
)
def test_the_head_has_as_many_parameters_as_by_hand(width: int, by_hand: int) -> None:
    config = SpanBertConfig(family="spanbert", vocab_size=28996, hidden_size=width, num_heads=16)
    with torch.device("meta"):
        model = build_model(config)
    body = {id(parameter) for parameter in model.embeddings.parameters()}
    own = [
        parameter.numel()
        for parameter in model.heads["span_boundary"].parameters()
        if id(parameter) not in body
    ]
    assert sum(own) == by_hand


def test_scores_follow_from_the_two_places_and_the_index_alone() -> None:
    head, hidden = head_of(nn.Embedding(20, 6)), torch.randn(2, 5, 6)
    left, right, index = torch.tensor([0, 0, 6]), torch.tensor([3, 3, 9]), torch.tensor([0, 1, 0])
    with torch.no_grad():
        scores = logits(head(hidden, left, right, index))
        inside = hidden.clone()
        inside[0, 1:3] = inside[0, 4] = inside[1, 0] = inside[1, 2:4] = 100.0
        assert torch.equal(logits(head(inside, left, right, index)), scores)
        assert not torch.equal(scores[0], scores[1])  # another index
        swapped = logits(head(hidden, right, left, index))
    assert not torch.isclose(swapped, scores).all(-1).any()


def test_without_attention_no_token_but_the_two_around_a_span_matters() -> None:
    torch.manual_seed(0)
    model = build_model(TINY).eval()
    model.blocks = type(model.blocks)([])  # hidden states are embeddings
    probe = make_probe(TINY.vocab_size, TINY.max_positions, TINY.num_segments)
    batch = replace(probe.batch, targets=boundaries(probe))
    asked = batch.targets["span_boundary"]
    hidden_too = set(range(batch.ids.numel())) - {
        *asked.indices.tolist(),
        *asked.extra["right_place"].tolist(),
    }
    other = batch.ids.clone()
    other[0, sorted(hidden_too)] = 5
    with torch.no_grad():
        before = logits(model(batch)["span_boundary"])
        after = logits(model(replace(batch, ids=other))["span_boundary"])
    assert torch.equal(before, after)


def test_the_loss_sums_over_real_targets_alone() -> None:
    """A step's sum is divided by the count of the step, without the reference's plus one."""
    probe = make_probe(TINY.vocab_size, TINY.max_positions, TINY.num_segments)
    asked = boundaries(probe)["span_boundary"]
    labels = torch.arange(len(asked.indices)) % TINY.vocab_size
    labels[3:7] = IGNORED
    batch = replace(probe.batch, targets={"span_boundary": replace(asked, labels=labels)})
    torch.manual_seed(0)
    model = build_model(TINY).eval()
    outputs = model(batch)
    loss = SpanBoundary(SpanBoundaryConfig(kind="span_boundary"))(outputs, batch)
    scores = logits(outputs["span_boundary"]).double().log_softmax(-1)
    expected = -sum(scores[at, label] for at, label in enumerate(labels.tolist()) if label >= 0)
    assert loss.count == len(labels) - 4
    torch.testing.assert_close(loss.total.double(), expected, atol=2e-5, rtol=0)  # measured: 3e-6


def test_both_heads_train_the_shared_word_table() -> None:
    probe = make_probe(TINY.vocab_size, TINY.max_positions, TINY.num_segments)
    asked = boundaries(probe)["span_boundary"]
    model = build_model(TINY)
    head = model.heads["span_boundary"]
    assert head.decoder.weight is model.embeddings.word.weight
    outputs = model(replace(probe.batch, targets={"span_boundary": asked}))
    outputs["span_boundary"].cross_entropy(asked.labels).total.backward()
    assert model.embeddings.word.weight.grad.abs().sum() > 0
    assert model.heads["masked_lm"].dense.weight.grad is None
    assert (head.index.weight.grad.abs().sum(1) > 0).all()  # indices 0 to 14


def test_the_cost_is_that_of_three_products() -> None:
    head = head_of(nn.Embedding(20, 6))
    counted = cost(head, targets("span_boundary"))
    assert counted.forward == Counter({"targets/span_boundary": 15 * 6 + 6 * 6 + 6 * 20})


def test_more_tokens_of_a_span_than_the_table_has_are_refused(
    recipe_of: Callable[[str], Path],
) -> None:
    run = decode_run(load(recipe_of("spanbert"), ["model.max_span_index=14"]))
    task = PretrainingTask(build_model(run.model), build_objectives(run.objectives))
    with pytest.raises(ConfigError, match=r"needs model\.max_span_index=15"):
        fit(run, open_data(run), task)


def test_targets_of_other_objectives_are_refused() -> None:
    probe = make_probe(TINY.vocab_size, TINY.max_positions, TINY.num_segments)
    one = torch.tensor([0])
    batch = replace(probe.batch, targets={"next_sentence": Targets(one, one)})
    with pytest.raises(ValueError, match="no head for next_sentence"):
        build_model(TINY)(batch)
