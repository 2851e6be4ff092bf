"""Formulas against what torch counts of a step's products, and against paper and pencil."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.batch import IGNORED, Batch, Targets
from pipeline.flops import TOKENS, Meter, cost, meter, real, spent, targets
from pipeline.models.bert import Bert, BertConfig
from pipeline.nn.attending import boundaries
from pipeline.nn.attention import SelfAttention
from pipeline.nn.blocks import Checkpointing, Stack, compile_blocks, save_memory
from pipeline.nn.heads import TiedDecoder
from pipeline.nn.model import Outputs, PretrainingModel
from pipeline.objectives import build_objectives
from pipeline.objectives.base import Objective
from pipeline.objectives.masked_lm import MaskedLMConfig
from pipeline.objectives.next_sentence import NextSentenceConfig
from pipeline.objectives.task import PretrainingTask

sys.path.insert(0, str(Path(__file__).parent / "seams"))

from twins import LENGTH, MEMORY_LENGTH, TWINS, Classified

MINI = {"hidden_size": 256, "num_layers": 4, "num_heads": 4, "intermediate_size": 1024}
BASE = {"hidden_size": 768, "num_layers": 12, "num_heads": 12, "intermediate_size": 3072}
LARGE = {"hidden_size": 1024, "num_layers": 24, "num_heads": 16, "intermediate_size": 4096}
OBJECTIVES = build_objectives(
    (MaskedLMConfig(kind="masked_lm"), NextSentenceConfig(kind="next_sentence"))
)


def bert(shape: Mapping[str, Any], vocab_size: int = 30522) -> Bert:
    """Without memory, weights or time."""
    with torch.device("meta"):
        return Bert(BertConfig(family="bert", vocab_size=vocab_size, **shape))


def padded(rows: int, length: int, asked: Mapping[str, int], filled: int = 1) -> Batch:
    """Rows of one sequence of ``filled`` tokens, with so many targets, half of them real."""
    ids = torch.zeros(rows, length, dtype=torch.int64)
    inside = (torch.arange(length) < filled).long().expand(rows, -1)
    labels = {name: torch.full((count,), IGNORED) for name, count in asked.items()}
    for own in labels.values():
        own[: len(own) // 2] = 1
    return Batch(
        ids=ids,
        sequence_ids=inside,
        positions=ids,
        segment_ids=ids,
        targets={
            name: Targets(torch.zeros(count, dtype=torch.int64), labels[name])
            for name, count in asked.items()
        },
    )


def counted(model: PretrainingModel, batch: Batch, objectives: Mapping[str, Objective]) -> int:
    """What torch counts in forward and backward pass.

    Less the sums over targets that are the gradient of a decoder's bias: those are no products but
    in how they are written.
    """
    task = PretrainingTask(model, objectives).train()
    model.attending.static = True
    with (
        mock.patch("pipeline.nn.products.SMALLEST", float("inf")),  # alike on all machines
        FakeTensorMode(allow_non_fake_inputs=True) as fake,
        FlopCounterMode(display=False) as counter,
        sdpa_kernel(SDPBackend.MATH),
    ):
        task.to_empty(device="cpu")
        loss, *_ = task(batch.map(fake.from_tensor), torch.ones(len(objectives)))
        loss.backward()
    (decoder,) = (module for module in model.modules() if isinstance(module, TiedDecoder))
    asked = batch.targets[model.outputs[0]].labels
    return int(counter.get_total_flops()) - 2 * len(decoder.bias) * len(asked)


@pytest.mark.parametrize("checkpointing", ["none", "selective", "full"])
@pytest.mark.parametrize(
    ("shape", "rows", "length"), [(MINI, 3, 128), (BASE, 2, 128), (BASE, 1, 512), (LARGE, 1, 512)]
)
def test_spent_flops_are_what_torch_counts(
    shape: dict[str, int], rows: int, length: int, checkpointing: Checkpointing
) -> None:
    model = bert(shape)
    save_memory(model, checkpointing)
    batch = padded(rows, length, {"masked_lm": 21, "next_sentence": rows})
    formula = Meter(cost(model), "dense", fused=False)
    assert formula(batch).spent == counted(model, batch, OBJECTIVES)


def test_full_work_is_what_paper_and_pencil_say() -> None:
    """BERT-base, 4 full rows of 512, targets everywhere: real and spent are the same."""
    layers, width, inner, vocab, length, rows = 12, 768, 3072, 30522, 512, 4
    tokens = rows * length
    batch = padded(rows, length, {"masked_lm": 300}, filled=length)
    full = Targets(torch.arange(300), torch.ones(300, dtype=torch.int64))
    batch = replace(batch, targets={"masked_lm": full})

    in_blocks = layers * (4 * width * width + 2 * width * inner)
    in_head = width * width + width * vocab
    by_hand = 6 * in_blocks * tokens + 12 * layers * width * length * tokens + 6 * in_head * 300
    assert Meter(cost(bert(BASE)), "dense", fused=False)(batch) == (by_hand, by_hand)
    # What a fused kernel computes again: the scores, a sixth of the attention.
    again = 2 * layers * width * length * tokens
    assert Meter(cost(bert(BASE)), "dense", fused=True)(batch) == (by_hand, by_hand + again)


def test_real_work_leaves_out_padding_and_other_sequences() -> None:
    """Row 0: lengths 4 and 2, two of padding. Row 1: length 8. Row 2: nothing."""
    ids = torch.tensor([[1, 1, 1, 1, 2, 2, 0, 0], [1] * 8, [0] * 8])
    batch = replace(
        padded(3, 8, {"masked_lm": 6}),
        sequence_ids=ids,
        decoder=replace(
            padded(3, 4, {}),
            sequence_ids=torch.tensor([[1, 2, 2, 0], [1, 1, 1, 0], [0, 0, 0, 0]]),
        ),
    )
    assert real(batch) == {
        "rows": 2,
        "tokens": 14,
        "pairs": 16 + 4 + 64,
        "decoder/tokens": 6,
        "decoder/pairs": 1 + 4 + 9,
        "cross/pairs": 4 * 1 + 2 * 2 + 8 * 3,
        "targets/masked_lm": 3,
    }
    assert spent(batch, "dense") == {
        "rows": 3,
        "tokens": 24,
        "pairs": 3 * 64,
        "decoder/tokens": 12,
        "decoder/pairs": 3 * 16,
        "cross/pairs": 3 * 32,
        "targets/masked_lm": 6,
    }
    assert spent(batch, "varlen")["pairs"] == 16 + 4 + 4 + 64 + 64
    begins = boundaries(ids).diff()
    assert spent(batch, "varlen")["pairs"] == begins.square().sum()


def test_flex_computes_blocks_in_which_any_pair_is_of_one_sequence() -> None:
    """Blocks 0, 1 and 2 of 300 places; one sequence ends in the first, one in the last."""
    ids = torch.cat([torch.full((100,), 1), torch.full((190,), 2), torch.full((10,), 0)])
    batch = replace(padded(1, 300, {}), sequence_ids=ids.unsqueeze(0))
    assert spent(batch, "flex")["pairs"] == 9 * 128 * 128
    apart = torch.cat([torch.full((128,), 1), torch.full((172,), 2)])
    batch = replace(batch, sequence_ids=apart.unsqueeze(0))
    assert spent(batch, "flex")["pairs"] == (1 + 4) * 128 * 128


def test_a_shared_block_counts_as_often_as_it_is_called() -> None:
    shared, apart = bert(MINI, vocab_size=100), bert(MINI, vocab_size=100)
    shared.blocks = Stack([shared.blocks[0]] * 4)
    batch = padded(2, 64, {"masked_lm": 5, "next_sentence": 2})
    measured = Meter(cost(shared), "dense", fused=False)(batch)
    assert measured == Meter(cost(apart), "dense", fused=False)(batch)
    assert measured.spent == counted(shared, batch, OBJECTIVES)


def test_compiled_blocks_that_are_computed_again_count_twice() -> None:
    model = bert(MINI, vocab_size=100)
    save_memory(model, "full")
    before = cost(model)
    compile_blocks(model)
    assert cost(model) == before
    assert before.again == cost(model.blocks).forward


@pytest.mark.parametrize("twin", TWINS)
def test_models_of_other_forms_are_counted(twin: str) -> None:
    """Two stacks, a memory, an encoder with a decoder, of unlike lengths."""
    with torch.device("meta"):
        model = TWINS[twin](300)
    batch = padded(3, LENGTH, {name: 7 + index for index, name in enumerate(model.outputs)})
    if twin == "pair":
        masked = batch.targets["masked_lm"]
        own = replace(masked, extra={"uniform": torch.zeros(len(masked.labels))})
        batch = replace(batch, targets={**batch.targets, "masked_lm": own})
    if twin == "translator":
        batch = replace(batch, decoder=padded(3, 24, {}))
    objectives = {name: Classified(name) for name in model.outputs}
    formula = Meter(cost(model), "dense", fused=False)
    assert formula(batch).spent == counted(model, batch, objectives)


def test_a_memory_is_no_padding() -> None:
    with torch.device("meta"):
        model = TWINS["stream"](300)
    full = padded(2, LENGTH, {"causal_lm": 0}, filled=LENGTH)
    measured = Meter(cost(model), "dense", fused=True)(full)
    scores = 2 * 2 * 32 * 2 * LENGTH * (LENGTH + MEMORY_LENGTH)
    assert measured.spent - measured.real == scores


def test_rows_that_nobody_attends_from_are_told_apart_by_device_and_dropout() -> None:
    """Fused kernels compute scores again; on a CPU dropout has them kept."""
    batch = padded(2, 64, {"masked_lm": 5, "next_sentence": 2})
    cpu, model = torch.device("cpu"), bert(MINI, vocab_size=100)
    kept = meter(model, cpu, torch.float32)(batch)
    assert kept == Meter(cost(model), "dense", fused=False)(batch)
    model.attending.dropout = 0.0
    fused = meter(model, cpu, torch.float32)(batch)
    assert fused.real == kept.real
    assert fused.spent - kept.spent == 2 * 4 * 256 * 2 * 64 * 64


class Unheard(nn.Module):
    """Computes who knows what."""


class Loose(PretrainingModel):
    """A model whose projection is called nobody knows where."""

    outputs = ("masked_lm",)

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(4, 4)

    def initialize(self, whole: object = None) -> None: ...

    def forward(self, batch: Batch) -> Outputs:
        raise NotImplementedError


def test_what_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"FLOPs of Unheard are not known; give it a method cost"):
        cost(Stack([Unheard()]))
    with pytest.raises(ValueError, match="FLOPs of Unheard"):
        cost(SelfAttention(8, 2, Unheard()))
    with pytest.raises(ValueError, match=r"FLOPs of Loose .* its projection \(Linear\) is called"):
        cost(Loose())


def test_what_computes_something_else_is_no_known_block() -> None:
    class Wider(SelfAttention):
        """Overrides what its parent computes."""

    with pytest.raises(ValueError, match="FLOPs of Wider"):
        cost(Wider(8, 2, Unheard()))


def test_attention_has_no_place_among_targets() -> None:
    with pytest.raises(AssertionError):
        cost(bert(MINI, vocab_size=100).blocks, targets("masked_lm"))
    assert cost(nn.Linear(3, 5), TOKENS).forward == {"tokens": 15}
