"""A whole step of a BERT as it is trained, beside each sequence alone with plain logits.

The judge is float64: sequences one to a row, padded, all logits at once, torch's cross-entropy.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.batch import IGNORED, Batch, Targets
from pipeline.models.bert import Bert, BertConfig
from pipeline.nn import cross_entropy
from pipeline.nn.blocks import compile_blocks, save_memory
from pipeline.nn.scores import logits
from pipeline.objectives import build_objectives
from pipeline.objectives.masked_lm import MaskedLMConfig
from pipeline.objectives.next_sentence import NextSentenceConfig
from pipeline.objectives.task import PretrainingTask

VOCAB, LENGTH, NAMES = 1031, 64, ("masked_lm", "next_sentence")
PACKED = ((30, 21, 13), (64,), (40, 17, 4), (9, 8, 12, 5, 11, 7), (50, 10), (33, 30))
"""Lengths of the sequences of each row; some rows end in padding."""


class Sequence(NamedTuple):
    ids: Tensor
    segment_ids: Tensor
    places: Tensor
    labels: Tensor
    follows: Tensor


class Step(NamedTuple):
    loss: float
    gradients: dict[str, Tensor]


def sequences() -> list[list[Sequence]]:
    """Pairs whose words are as unequally frequent as those of a text."""
    generator = torch.Generator().manual_seed(0)
    frequencies = 1 / torch.arange(1, VOCAB - 4).double()

    def one(length: int) -> Sequence:
        ids = 5 + torch.multinomial(frequencies, length, True, generator=generator)
        ids[0], ids[length // 2], ids[-1] = 2, 3, 3
        places = (torch.rand(length, generator=generator) < 0.15).nonzero().flatten()
        labels = ids[places]
        ids = ids.index_fill(0, places, 4)
        follows = torch.randint(2, (1,), generator=generator)
        return Sequence(ids, (torch.arange(length) > length // 2).long(), places, labels, follows)

    return [[one(length) for length in row] for row in PACKED]


def to_batch(rows: list[list[Sequence]]) -> Batch:
    """Rows of whole sequences, with targets padded to a static count."""
    ids, sequence_ids, positions, segment_ids = torch.zeros(4, len(rows), LENGTH).long()
    places, labels, firsts, follows = [], [], [], []
    for number, row in enumerate(rows):
        begin = 0
        for turn, one in enumerate(row, 1):
            part, at = slice(begin, begin + len(one.ids)), number * LENGTH + begin
            ids[number, part], segment_ids[number, part] = one.ids, one.segment_ids
            sequence_ids[number, part], positions[number, part] = turn, torch.arange(len(one.ids))
            places.append(at + one.places)
            labels.append(one.labels)
            firsts.append(torch.tensor([at]))
            follows.append(one.follows)
            begin = part.stop
    targets = {
        "masked_lm": Targets(
            F.pad(torch.cat(places), (0, 9)), F.pad(torch.cat(labels), (0, 9), value=IGNORED)
        ),
        "next_sentence": Targets(
            F.pad(torch.cat(firsts), (0, 3)), F.pad(torch.cat(follows), (0, 3), value=IGNORED)
        ),
    }
    return Batch(ids, sequence_ids, positions, segment_ids, targets)


@pytest.fixture(scope="module")
def model() -> Bert:
    torch.manual_seed(0)
    config = BertConfig(
        family="bert",
        vocab_size=VOCAB,
        hidden_size=64,
        num_layers=3,
        num_heads=4,
        intermediate_size=256,
        max_positions=LENGTH,
        dropout=0.0,
        attention_dropout=0.0,
        initializer_std=0.1,
    )
    return Bert(config)


@pytest.fixture(scope="module")
def packed() -> Batch:
    return to_batch(sequences())


@pytest.fixture(scope="module")
def alone() -> Batch:
    return to_batch([[one] for row in sequences() for one in row])


def plain_step(model: Bert, batch: Batch, dtype: torch.dtype) -> Step:
    """All logits, one mean a task."""
    own = copy.deepcopy(model)
    if dtype == torch.float64:
        own.double()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        outputs = own(batch)
        scores = {name: logits(outputs[name]) for name in NAMES}
    loss = sum(
        F.cross_entropy(
            scores[name] if dtype == torch.float64 else scores[name].float(),
            batch.targets[name].labels,
            ignore_index=IGNORED,
        )
        for name in NAMES
    )
    assert isinstance(loss, Tensor)
    loss.backward()
    return found(loss, own)


def found(loss: Tensor, model: Bert) -> Step:
    gradients = {
        name: parameter.grad.double()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    assert len(gradients) == len(list(model.parameters()))
    return Step(loss.item(), gradients)


def our_step(model: Bert, batch: Batch, dtype: torch.dtype, *, how: Any = "none") -> Step:
    """As the trainer does it."""
    own = copy.deepcopy(model)
    if how == "compiled":
        compile_blocks(own)
        own.attending.static = True
    else:
        save_memory(own, how)
    configs = MaskedLMConfig(kind="masked_lm"), NextSentenceConfig(kind="next_sentence")
    task = PretrainingTask(own, build_objectives(configs)).train()
    labels = (batch.targets[name].labels for name in task.objective_names)
    counts = torch.stack([(own != IGNORED).sum().float() for own in labels])
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = task(batch, counts).loss
    loss.backward()
    return found(loss, own)


WITHOUT_GRADIENT = ".key.bias"
"""Adds the same to all scores of a query: its gradient is rounding alone, 3e-18 in float64."""


def distances(one: Step, other: Step) -> dict[str, float]:
    """Of each tensor's gradient, relative to its largest value."""
    return {
        name: float((one.gradients[name] - right).abs().max() / right.abs().max())
        for name, right in other.gradients.items()
        if not name.endswith(WITHOUT_GRADIENT)
    }


def distance(one: Step, other: Step) -> float:
    """Of the gradients as one vector, relative to its length."""
    right = torch.cat([gradient.flatten() for gradient in other.gradients.values()])
    own = torch.cat([one.gradients[name].flatten() for name in other.gradients])
    return float((own - right).norm() / right.norm())


@pytest.fixture(scope="module")
def judge(model: Bert, alone: Batch) -> Step:
    return plain_step(model, alone, torch.float64)


@pytest.fixture(scope="module")
def in_bf16(model: Bert, alone: Batch) -> Step:
    return plain_step(model, alone, torch.bfloat16)


WAYS = ("none", "selective", "full")


def test_the_packed_rows_hold_the_same_sequences(packed: Batch, alone: Batch, model: Bert) -> None:
    assert len(packed.ids) == len(PACKED) < len(alone.ids) == sum(map(len, PACKED))
    assert (packed.sequence_ids == 0).any()
    apart, together = (plain_step(model, one, torch.float64) for one in (alone, packed))
    assert together.loss == pytest.approx(apart.loss, rel=1e-14)
    assert max(distances(together, apart).values()) < 1e-13  # measured: 9.2e-16


@pytest.mark.parametrize("how", [*WAYS, "compiled"])
def test_a_packed_step_in_fp32(model: Bert, packed: Batch, judge: Step, how: str) -> None:
    step = our_step(model, packed, torch.float32, how=how)
    assert step.loss == pytest.approx(judge.loss, rel=1e-6)  # measured: 2.3e-9
    # Measured: 1.4e-6, and 1.5e-6 for padded rows and plain logits.
    assert max(distances(step, judge).values()) < 1e-5


@pytest.mark.parametrize("how", [*WAYS, pytest.param("compiled", marks=pytest.mark.slow)])
def test_a_packed_step_in_bf16(
    model: Bert, packed: Batch, judge: Step, in_bf16: Step, how: str
) -> None:
    """No farther from float64 than padded rows and plain logits in bf16 are themselves."""
    step = our_step(model, packed, torch.bfloat16, how=how)
    assert step.loss == pytest.approx(judge.loss, rel=5e-4)  # measured: 8.6e-5, theirs 8.6e-5
    assert step.loss == pytest.approx(in_bf16.loss, rel=5e-4)  # measured: 1.2e-7
    # Measured: 4.4e-3 between the two (compiled 4.6e-3), 6.4e-3 to float64 for either.
    assert distance(step, in_bf16) < 5e-3
    assert distance(step, judge) < 1.1 * distance(in_bf16, judge) < 8e-3
    # Measured for each tensor's largest error: 2.0e-2, theirs too.
    worst, theirs = (max(distances(one, judge).values()) for one in (step, in_bf16))
    assert worst < 1.1 * theirs < 2.5e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_classes_that_fill_up_the_product_and_small_chunks_change_nothing(
    monkeypatch: pytest.MonkeyPatch, model: Bert, packed: Batch, dtype: torch.dtype
) -> None:
    before = our_step(model, packed, dtype)
    monkeypatch.setitem(cross_entropy._MULTIPLE, "cpu", 64)
    monkeypatch.setitem(cross_entropy._CHUNK_BYTES, "cpu", 4 * VOCAB * 7)  # 7 targets
    after = our_step(model, packed, dtype)
    assert after.loss == pytest.approx(before.loss, rel=1e-6)
    # Sums of chunks are rounded apart. Measured: 4.6e-7 and 6.7e-4.
    assert distance(after, before) < (2e-6 if dtype == torch.float32 else 2e-3)
    for step in (before, after):
        assert step.gradients["embeddings.word.weight"].shape == (VOCAB, 64)


@pytest.mark.parametrize("how", ["selective", "full"])
def test_what_is_computed_again_comes_out_the_same(model: Bert, packed: Batch, how: str) -> None:
    kept, again = (our_step(model, packed, torch.float32, how=way) for way in ("none", how))
    assert again.loss == kept.loss
    assert all(torch.equal(again.gradients[name], right) for name, right in kept.gradients.items())
