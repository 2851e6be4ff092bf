"""That the twins are what they are to stand for."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from seam_runs import objectives
from twins import MEMORY_LENGTH, PairTwin, StreamTwin, TranslatorTwin, sample

from pipeline.batch import IGNORED, Batch, Targets
from pipeline.nn.model import MEMORY
from pipeline.nn.scores import logits
from pipeline.objectives.task import PretrainingTask

VOCAB = 50


def plain_batch(ids: torch.Tensor, **targets: Targets) -> Batch:
    rows, length = ids.shape
    return Batch(
        ids=ids,
        sequence_ids=torch.ones_like(ids),
        positions=torch.arange(length).expand(rows, length),
        segment_ids=torch.zeros_like(ids),
        targets=targets,
    )


def draw_ids(rows: int, length: int) -> torch.Tensor:
    return torch.randint(5, VOCAB, (rows, length), generator=torch.Generator().manual_seed(1))


def pair_batch() -> Batch:
    """Six picks, one of them twice, and one that is padding."""
    ids = draw_ids(3, 10)
    places = torch.tensor([1, 4, 4, 12, 17, 25, 0])
    labels = ids.flatten()[places]
    labels[-1] = IGNORED
    uniform = torch.tensor([0.1, 0.5, 0.5, 0.9, 0.99, 0.3, 0.0])
    shown = ids.clone().flatten()
    shown[places[:-1]] = 4  # [MASK]
    everywhere = torch.arange(30)
    asked = torch.zeros(30, dtype=torch.long).masked_fill(everywhere == 29, IGNORED)
    return plain_batch(
        shown.view_as(ids),
        masked_lm=Targets(places, labels, {"uniform": uniform}),
        replaced_tokens=Targets(everywhere, asked),
    )


def pair_task() -> PretrainingTask:
    torch.manual_seed(0)
    return PretrainingTask(PairTwin(VOCAB, 0.0), objectives("pair"))


def test_samples_invert_the_distribution() -> None:
    logits = torch.tensor([0.5, 0.25, 0.25]).log().expand(6, 3)
    uniform = torch.tensor([0.0, 0.49, 0.51, 0.74, 0.76, 1 - 2**-24])
    assert sample(logits, uniform).tolist() == [0, 0, 1, 1, 2, 2]


def test_the_discriminator_gives_the_shared_vectors_no_gradient() -> None:
    task = pair_task()
    batch = pair_batch()
    loss, _, memory = task(batch, torch.tensor([math.inf, 29.0]))
    loss.backward()
    shared, delta = task.model.generator_embeddings.word.weight, task.model.words.delta
    assert not shared.grad.any()
    assert delta.grad.any()
    assert not any(p.grad.any() for p in task.model.generator.parameters())
    assert memory == {}
    task.zero_grad()
    task(batch, torch.tensor([6.0, math.inf]))[0].backward()
    assert shared.grad.any()
    assert not delta.grad.any()


def test_the_labels_that_a_model_makes_are_those_that_count() -> None:
    """Mean label = distinct picked share * (1 - accuracy of the samples)."""
    task, batch = pair_task(), pair_batch()
    outputs = task.model(batch)
    picks = batch.targets["masked_lm"]
    drawn = sample(logits(outputs["masked_lm"]), picks.extra["uniform"])
    wrong = set(picks.indices[:-1][(drawn != picks.labels)[:-1]].tolist())
    made = outputs["labels/replaced_tokens"]
    assert set(made.nonzero().flatten().tolist()) == wrong
    assert len(wrong) >= 4
    _, statistics, _ = task(batch, torch.tensor([6.0, 29.0]))
    right = (outputs["replaced_tokens"].argmax(-1) == made)[:-1].sum()
    assert statistics[1, 1:].tolist() == [29, right]


def causal_batch(ids: torch.Tensor) -> Batch:
    return plain_batch(ids, causal_lm=Targets(torch.arange(ids.numel()), ids.flatten()))


def test_windows_with_memory_are_one_pass() -> None:
    torch.manual_seed(0)
    model = StreamTwin(VOCAB, 0.0).double()
    ids = draw_ids(3, 2 * MEMORY_LENGTH)
    whole = logits(model(causal_batch(ids))["causal_lm"]).view(3, -1, VOCAB)
    memory, parts = None, []
    for begin in range(0, ids.shape[1], 8):
        outputs = model(replace(causal_batch(ids[:, begin : begin + 8]), memory=memory))
        memory = {name.removeprefix(MEMORY): t for name, t in outputs.items() if MEMORY in name}
        parts.append(logits(outputs["causal_lm"]).view(3, -1, VOCAB))
    apart = torch.cat(parts, dim=1)
    torch.testing.assert_close(apart[:, : MEMORY_LENGTH + 8], whole[:, : MEMORY_LENGTH + 8])
    assert memory["filled"].tolist() == [MEMORY_LENGTH] * 3
    # Further on the one pass sees more than the memory holds.
    assert (apart - whole)[:, MEMORY_LENGTH + 8 :].abs().max() > 1e-6


def test_what_a_task_carries_on_has_no_gradient() -> None:
    torch.manual_seed(0)
    task = PretrainingTask(StreamTwin(VOCAB, 0.0), objectives("stream"))
    batch = causal_batch(draw_ids(2, 8))
    _, _, memory = task(batch, torch.tensor([16.0]))
    initial = task.model.initial_memory(2)
    assert {name: t.shape for name, t in memory.items()} == {
        name: t.shape for name, t in initial.items()
    }
    assert not any(tensor.requires_grad for tensor in memory.values())
    loss, *_ = task(replace(batch, memory=memory), torch.tensor([16.0]))
    loss.backward()


@pytest.mark.parametrize("padded", [0, 3])
def test_a_padded_decoder_beside_a_full_encoder_stays_finite(padded: int) -> None:
    torch.manual_seed(0)
    task = PretrainingTask(TranslatorTwin(VOCAB, 0.0), objectives("translator"))
    told = plain_batch(draw_ids(2, 6))
    sequence_ids = told.sequence_ids.clone()
    sequence_ids[:, 6 - padded :] = 0
    places = torch.arange(12)[sequence_ids.flatten() > 0]
    batch = plain_batch(
        draw_ids(2, 8), denoising=Targets(places, torch.ones_like(places), of_decoder=True)
    )
    batch = replace(batch, decoder=replace(told, sequence_ids=sequence_ids))
    loss, *_ = task(batch, torch.tensor([float(len(places))]))
    loss.backward()
    assert loss.isfinite()
    assert all(tensor.grad.isfinite().all() for tensor in task.parameters())
