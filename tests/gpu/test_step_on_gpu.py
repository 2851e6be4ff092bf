"""A whole step on a GPU: the same numbers, no waiting, no compiling anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.utils import counters

from pipeline.batch import IGNORED, Batch
from pipeline.data import MicroBatch
from pipeline.models.bert import Bert, BertConfig
from pipeline.nn.blocks import compile_blocks, save_memory
from pipeline.nn.cross_entropy import linear_cross_entropy
from pipeline.objectives import build_objectives
from pipeline.objectives.masked_lm import MaskedLMConfig
from pipeline.objectives.next_sentence import NextSentenceConfig
from pipeline.objectives.task import PretrainingTask
from pipeline.sections import Fp16Config
from pipeline.training.feeding import feed
from pipeline.training.local_engine import LocalEngine

NAMES = ("masked_lm", "next_sentence")
CONFIG = BertConfig(
    family="bert",
    vocab_size=3001,
    hidden_size=128,
    num_layers=3,
    num_heads=2,
    intermediate_size=512,
    dropout=0.0,
    attention_dropout=0.0,
    initializer_std=0.1,
)
DENOMINATORS = torch.tensor([500.0, 40.0])


def engine(how: Any, precision: str) -> LocalEngine:
    torch.manual_seed(0)
    model = Bert(CONFIG)
    if how == "compiled":
        compile_blocks(model)
        model.attending.static = True
    else:
        save_memory(model, how)
    configs = MaskedLMConfig(kind="masked_lm"), NextSentenceConfig(kind="next_sentence")
    task = PretrainingTask(model, build_objectives(configs))
    rates = torch.optim.SGD(task.parameters(), 0.1)
    return LocalEngine(task, rates, precision=precision, gradient_clipping=0.0, fp16=Fp16Config())


def gradients(task: PretrainingTask) -> Tensor:
    """All of them as one vector."""
    found = []
    for name, parameter in task.named_parameters():
        assert parameter.grad is not None, name
        found.append(parameter.grad.double().flatten().cpu())
    return torch.cat(found)


@pytest.fixture
def judge(batch: Batch) -> Tensor:
    """Dense attention and the same sums in float64, on the host."""
    torch.manual_seed(0)
    configs = MaskedLMConfig(kind="masked_lm"), NextSentenceConfig(kind="next_sentence")
    task = PretrainingTask(Bert(CONFIG).double(), build_objectives(configs))
    task(batch, DENOMINATORS).loss.backward()
    return gradients(task)


def fed(batch: Batch, device: torch.device, *, varlen: bool = True) -> list[Any]:
    steps = [[MicroBatch(batch, 0, 1)], [MicroBatch(batch.weightless(), 0, 2)]]
    return list(feed(steps, device, NAMES, varlen=varlen))


@pytest.mark.parametrize(
    ("precision", "bound"), [("fp32", 1e-5), ("bf16", 2e-2)], ids=["fp32", "bf16"]
)
@pytest.mark.parametrize("how", ["none", "selective", "full", "compiled"])
def test_gradients_are_those_of_dense_attention_in_float64(
    gpu: torch.device, batch: Batch, judge: Tensor, how: str, precision: str, bound: float
) -> None:
    """By flex in fp32, by boundaries in bf16."""
    own = engine(how, precision)
    (micro,) = fed(batch, gpu)[0].batches
    passed = own.backward(micro.batch, DENOMINATORS.to(gpu))
    assert passed.statistics[:, 1].tolist() == [
        (batch.targets[name].labels != IGNORED).sum() for name in NAMES
    ]
    off = (gradients(own.task) - judge).norm() / judge.norm()
    assert off < bound


@pytest.mark.parametrize("how", ["none", "full", "compiled"])
def test_the_host_never_waits_within_a_micro_batch(
    gpu: torch.device, batch: Batch, how: str
) -> None:
    own = engine(how, "bf16")
    (micro,) = fed(batch, gpu)[0].batches
    denominators = DENOMINATORS.to(gpu)
    own.backward(micro.batch, denominators)  # compiles, and chooses algorithms
    torch.cuda.set_sync_debug_mode("error")
    try:
        passed = own.backward(micro.batch, denominators)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert passed.statistics[0, 0] > 0


def test_another_number_of_sequences_compiles_nothing_anew(gpu: torch.device, batch: Batch) -> None:
    own = engine("compiled", "bf16")
    denominators, seen = DENOMINATORS.to(gpu), []
    for joined in range(4):
        ids = batch.sequence_ids.clamp(max=10 - 2 * joined)
        (micro,) = fed(replace(batch, sequence_ids=ids), gpu)[0].batches
        assert micro.batch.boundaries is not None
        own.backward(micro.batch, denominators)
        seen.append((len(micro.batch.boundaries), counters["stats"]["unique_graphs"]))
    assert len({length for length, _ in seen}) > 1
    assert len({graphs for _, graphs in seen}) == 1


@pytest.mark.parametrize("varlen", [False, True])
def test_what_is_copied_ahead_is_what_was_given(
    gpu: torch.device, batch: Batch, varlen: bool
) -> None:
    here = fed(batch, torch.device("cpu"), varlen=varlen)
    there = fed(batch, gpu, varlen=varlen)
    assert len(there) == len(here) == 2
    for one, other in zip(there, here, strict=True):
        assert torch.equal(one.counts.cpu(), other.counts)
        (own,), (given,) = one.batches, other.batches
        assert (own.number, own.fingerprint) == (given.number, given.fingerprint)
        named, expected = own.batch.named(), given.batch.named()
        assert named.keys() == expected.keys()
        for name, tensor in named.items():
            assert tensor.device.type == "cuda"
            assert torch.equal(tensor.cpu(), expected[name])
        assert (own.batch.boundaries is not None) == varlen
        if varlen:
            assert own.batch.boundaries.tolist() == given.batch.boundaries.tolist()


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=["fp32", "bf16"]
)
def test_loss_of_a_large_vocabulary_in_little_memory(
    gpu: torch.device, dtype: torch.dtype, bound: float
) -> None:
    targets, classes, width = 4000, 30522, 64
    torch.manual_seed(0)
    hidden = torch.randn(targets, width, device=gpu)
    weight = torch.randn(classes, width, device=gpu) / 8
    labels = torch.randint(classes, (targets,), device=gpu).index_fill_(
        0, torch.arange(0, targets, 5, device=gpu), IGNORED
    )
    given = [
        one.to(dtype).requires_grad_() for one in (hidden, weight, torch.zeros(classes, device=gpu))
    ]
    exact = [one.detach().double().requires_grad_() for one in given]
    judge = F.cross_entropy(F.linear(*exact), labels, ignore_index=IGNORED, reduction="sum")
    right = torch.autograd.grad(judge, exact)

    del judge
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    found = linear_cross_entropy(*given, labels)
    ours = torch.autograd.grad(found.total, given)
    assert torch.cuda.max_memory_allocated() - before < 4 * targets * classes
    for one, other in zip(ours, right, strict=True):
        assert (one.double() - other).norm() < bound * other.norm()
