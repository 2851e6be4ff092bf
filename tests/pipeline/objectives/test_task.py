import math
from dataclasses import replace

import pytest
import torch

from configs.schema import ConfigError
from pipeline.batch import IGNORED, Batch, Targets
from pipeline.models.bert import Bert, BertConfig
from pipeline.nn.scores import logits
from pipeline.objectives import build_objectives
from pipeline.objectives.masked_lm import MaskedLMConfig
from pipeline.objectives.next_sentence import NextSentenceConfig
from pipeline.objectives.task import PretrainingTask

TINY = BertConfig(
    family="bert",
    vocab_size=50,
    hidden_size=16,
    num_layers=2,
    num_heads=4,
    intermediate_size=32,
    dropout=0.0,
    attention_dropout=0.0,
)


def bert_task(config: BertConfig = TINY, next_sentence_weight: float = 1.0) -> PretrainingTask:
    torch.manual_seed(0)
    configs = [
        MaskedLMConfig(kind="masked_lm"),
        NextSentenceConfig(kind="next_sentence", weight=next_sentence_weight),
    ]
    return PretrainingTask(Bert(config), build_objectives(configs))


def make_batch(
    seed: int, vocab_size: int, rows: int = 4, length: int = 16, targets: int = 12
) -> Batch:
    """Random full rows, the last target of each kind padded."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, high, shape, generator=generator)

    padded = torch.ones(targets, dtype=torch.bool)
    padded[:-1] = False
    return Batch(
        ids=draw(vocab_size, rows, length),
        sequence_ids=torch.ones(rows, length, dtype=torch.long),
        positions=torch.arange(length).expand(rows, length),
        segment_ids=draw(2, rows, length),
        targets={
            "masked_lm": Targets(
                draw(rows * length, targets).masked_fill(padded, 0),
                draw(vocab_size, targets).masked_fill(padded, IGNORED),
            ),
            "next_sentence": Targets(torch.arange(rows) * length, draw(2, rows)),
        },
    )


def gradients(task: PretrainingTask) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in task.named_parameters()}


def test_a_new_model_guesses_evenly() -> None:
    task = bert_task(replace(TINY, vocab_size=30522))
    batch = make_batch(0, 30522, rows=8, targets=65)
    loss, statistics, _ = task(batch, torch.tensor([64.0, 8.0]))
    # ln 30522 + ln 2 = 11.019; the spread of untrained logits moves it by some hundredths.
    assert loss.item() == pytest.approx(math.log(30522) + math.log(2), abs=0.05)
    assert statistics[:, 1].tolist() == [64, 8]


def test_micro_batches_of_one_step_add_up_to_its_mean() -> None:
    first, second = make_batch(1, 50, targets=12), make_batch(2, 50, targets=5)
    task = bert_task(next_sentence_weight=0.5)
    counts = torch.tensor([11.0 + 4.0, 8.0])
    losses = []
    for batch in (first, second, first.weightless()):
        loss, *_ = task(batch, counts)
        loss.backward()
        losses.append(loss.item())
    added = gradients(task)
    assert losses[2] == 0.0

    whole = Batch(
        *(
            torch.cat([getattr(first, name), getattr(second, name)])
            for name in ("ids", "sequence_ids", "positions", "segment_ids")
        ),
        targets={
            name: Targets(
                torch.cat([first.targets[name].indices, second.targets[name].indices + 64]),
                torch.cat([first.targets[name].labels, second.targets[name].labels]),
            )
            for name in first.targets
        },
    )
    task.zero_grad()
    outputs = task.model(whole)
    mean = torch.nn.functional.cross_entropy
    masked_lm = mean(logits(outputs["masked_lm"]), whole.targets["masked_lm"].labels)
    next_sentence = mean(outputs["next_sentence"], whole.targets["next_sentence"].labels)
    expected = masked_lm + 0.5 * next_sentence
    expected.backward()
    assert sum(losses) == pytest.approx(expected.item(), rel=1e-6)
    for name, gradient in gradients(task).items():
        torch.testing.assert_close(added[name], gradient, atol=1e-6, rtol=1e-4, msg=name)


def test_statistics_are_sums_in_the_order_of_the_names() -> None:
    task = bert_task()
    batch = make_batch(3, 50)
    _, statistics, _ = task(batch, torch.tensor([11.0, 4.0]))
    assert task.objective_names == ("masked_lm", "next_sentence")
    assert statistics.dtype == torch.float32
    assert not statistics.requires_grad
    outputs = task.model(batch)
    for name, row in zip(task.objective_names, statistics, strict=True):
        labels = batch.targets[name].labels
        real = labels != IGNORED
        guessed = logits(outputs[name]).argmax(-1)
        picked = logits(outputs[name]).log_softmax(-1)[real].gather(1, labels[real].unsqueeze(1))
        assert row[0].item() == pytest.approx(-picked.sum().item(), rel=1e-5)
        assert row[1:].tolist() == [real.sum(), (guessed == labels).sum()]


@pytest.mark.parametrize("denominators", [(11.0, 4.0), (0.0, 0.0)])
def test_a_weightless_micro_batch_moves_nothing(denominators: tuple[float, float]) -> None:
    task = bert_task()
    loss, statistics, _ = task(make_batch(0, 50).weightless(), torch.tensor(denominators))
    loss.backward()
    assert loss.item() == 0.0
    assert statistics.tolist() == [[0, 0, 0], [0, 0, 0]]
    for name, gradient in gradients(task).items():
        assert torch.equal(gradient, torch.zeros_like(gradient)), name


def test_a_step_without_targets_of_one_kind_is_the_other_alone() -> None:
    task = bert_task()
    batch = make_batch(0, 50)
    silent = replace(
        batch,
        targets={**batch.targets, "next_sentence": batch.weightless().targets["next_sentence"]},
    )
    loss, statistics, _ = task(silent, torch.tensor([11.0, 0.0]))
    assert loss.item() == pytest.approx(statistics[0, 0].item() / 11)


def test_objectives_and_outputs_must_be_the_same() -> None:
    masked_lm = build_objectives([MaskedLMConfig(kind="masked_lm")])
    with pytest.raises(
        ConfigError, match="next_sentence: the model predicts it and nothing trains"
    ):
        PretrainingTask(Bert(TINY), masked_lm)
    without = replace(TINY, next_sentence=False)
    assert PretrainingTask(Bert(without), masked_lm).objective_names == ("masked_lm",)
    with pytest.raises(ConfigError, match="next_sentence: the model does not predict it"):
        bert_task(without)
