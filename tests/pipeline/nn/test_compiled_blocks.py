"""Compiled blocks: one code for all layers and all rows of a shape, and never half of one."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.batch import Batch, Targets
from pipeline.models.bert import Bert, BertConfig
from pipeline.nn import attending, compiling
from pipeline.nn.attending import Path, boundaries
from pipeline.nn.blocks import Stack, compile_blocks, save_memory

LAYERS = 10
"""More than torch compiles of one function, were they to count."""


class Counting:
    """A backend that counts what it is given, and leaves it as it is."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, examples: list[Tensor]) -> Any:
        self.graphs += 1
        return graph.forward


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counting]:
    """Compiles at once, since nothing is compiled: what is compiled when, is the same."""
    torch._dynamo.reset()
    backend = Counting()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    yield backend
    torch._dynamo.reset()


def make_bert(layers: int = LAYERS, dropout: float = 0.0) -> Bert:
    torch.manual_seed(0)
    return Bert(
        BertConfig(
            family="bert",
            vocab_size=40,
            hidden_size=16,
            num_layers=layers,
            num_heads=2,
            intermediate_size=32,
            max_positions=64,
            dropout=dropout,
            attention_dropout=dropout,
            next_sentence=False,
        )
    )


def make_compiled(layers: int = LAYERS, dropout: float = 0.0) -> Bert:
    model = make_bert(layers, dropout)
    compile_blocks(model)
    model.attending.static = True
    return model


def make_batch(length: int = 16, kind: str = "full") -> Batch:
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(40, (2, length), generator=generator)
    sequence_ids = torch.ones_like(ids)
    if kind != "full":
        sequence_ids[1, length // 2 :] = 2
    if kind == "padded":
        sequence_ids[:, -3:] = 0
    if kind == "many":
        sequence_ids += torch.arange(length)
    positions = torch.arange(length).expand(2, length)
    targets = Targets(torch.arange(4), torch.arange(4))
    return Batch(ids, sequence_ids, positions, torch.zeros_like(ids), {"masked_lm": targets})


def run(model: Bert, batch: Batch, seed: int = 0) -> list[Tensor]:
    """The last hidden states, and the gradients of all blocks."""
    model.zero_grad()
    torch.manual_seed(seed)
    hidden = model.encode(batch)
    (hidden * torch.linspace(-1, 1, hidden.shape[-1])).sum().backward()
    gradients = [weight.grad for weight in model.blocks.parameters()]
    return [hidden.detach(), *(grad.clone() for grad in gradients if grad is not None)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_all_layers_and_all_rows_of_a_shape_share_a_code(
    counting: Counting, precision: str
) -> None:
    model, plain = make_compiled(), make_bert()
    for round_ in range(2):
        for length in range(12, 12 + 4 * 9, 4):  # torch's own bound is 8
            for kind in ("full", "several", "padded"):
                lower = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
                with lower:
                    found = run(model, make_batch(length, kind))
                    expected = run(plain, make_batch(length, kind))
                assert torch.equal(found[0], expected[0])
            assert counting.graphs == ((length - 8) // 4 if round_ == 0 else 9)


def test_what_would_be_compiled_too_often_is_an_error(
    counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "MOST_SHAPES", 2)
    model = make_compiled(layers=2)
    for length in (8, 12):
        run(model, make_batch(length))
    with pytest.raises(ValueError, match="more than 2 shapes; use fewer lengths"):
        run(model, make_batch(16))


def test_a_block_that_compiles_only_in_parts_is_an_error(counting: Counting) -> None:
    class Broken(nn.Module):
        def forward(self, hidden: Tensor) -> Tensor:
            torch._dynamo.graph_break()
            return hidden + 1

    stack = Stack([Broken()])
    compile_blocks(stack)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        stack(torch.ones(1, 2, 3))


def test_evaluation_is_not_compiled(counting: Counting) -> None:
    model = make_compiled(layers=2).eval()
    with torch.no_grad():
        model.encode(make_batch())
    assert counting.graphs == 0


def _by_boundaries(
    query: Tensor, key: Tensor, value: Tensor, begins: Tensor, *others: Any, scale: float | None
) -> Tensor:
    """Stands in for the kernel of a GPU: attention between boundaries."""
    places = torch.arange(len(query))
    owner = (places.unsqueeze(1) >= begins).sum(1)
    mask = owner.unsqueeze(1) == owner
    query, key, value = (heads.transpose(0, 1) for heads in (query, key, value))
    mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask, scale=scale)
    return mixed.transpose(0, 1)


def test_any_number_of_sequences_runs_through_one_code(
    counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = [make_batch(16, kind) for kind in ("full", "several", "padded", "many")]
    dense = [run(make_bert(layers=2), batch)[0] for batch in batches]
    monkeypatch.setattr(attending, "varlen_attn", _by_boundaries)
    monkeypatch.setattr(attending.Attending, "path", lambda *_: Path("varlen", "it is tested"))
    model = make_compiled(layers=2)
    for batch, expected in zip(batches, dense, strict=True):
        torch.testing.assert_close(run(model, batch)[0], expected, atol=2e-6, rtol=0)
    assert len({len(boundaries(batch.sequence_ids)) for batch in batches}) == 4
    assert counting.graphs == 1


def test_dropout_follows_from_the_seed_and_stays_when_blocks_are_computed_again() -> None:
    torch._dynamo.reset()
    model, batch = make_compiled(layers=2, dropout=0.3), make_batch()
    first, other = run(model, batch, seed=1), run(model, batch, seed=2)
    assert not torch.allclose(first[0], other[0], atol=0.1)
    for found, expected in zip(run(model, batch, seed=1), first, strict=True):
        assert torch.equal(found, expected)

    again = make_bert(layers=2, dropout=0.3)
    save_memory(again, "full")
    compile_blocks(again)
    again.attending.static = True
    for found, expected in zip(run(again, batch, seed=1), first, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", ["none", "selective", "full"])
def test_compiled_equals_plain(checkpointing: Any) -> None:
    torch._dynamo.reset()
    model = make_bert(layers=2)
    save_memory(model, checkpointing)
    compile_blocks(model)
    model.attending.static = True
    for kind in ("full", "padded"):
        batch = make_batch(16, kind)
        for found, expected in zip(run(model, batch), run(make_bert(2), batch), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
