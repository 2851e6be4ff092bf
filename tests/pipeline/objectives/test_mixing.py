from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_task import TINY, make_batch

from configs.schema import ConfigError, load
from pipeline.models.bert import Bert
from pipeline.objectives import build_objectives
from pipeline.objectives.masked_lm import MaskedLMConfig
from pipeline.objectives.mixing import denominators, trained_in
from pipeline.objectives.next_sentence import NextSentenceConfig
from pipeline.objectives.task import PretrainingTask

HEAD = "model.heads.next_sentence."


def mixed_task(probability: float = 0.25) -> PretrainingTask:
    torch.manual_seed(0)
    configs = [
        MaskedLMConfig(kind="masked_lm"),
        NextSentenceConfig(kind="next_sentence", probability=probability),
    ]
    return PretrainingTask(Bert(TINY), build_objectives(configs))


def gradients(task: PretrainingTask) -> dict[str, torch.Tensor]:
    return {name: tensor.grad for name, tensor in task.named_parameters()}


def test_an_objective_is_trained_in_its_share_of_steps() -> None:
    objectives = mixed_task(0.25).objectives
    drawn = torch.stack([trained_in(7, step, objectives) for step in range(4000)])

    assert drawn[:, 0].all()
    # 4000 draws: the deviation of the share is 0.0068.
    assert drawn[:, 1].float().mean().item() == pytest.approx(0.25, abs=0.025)
    runs = (drawn[1:, 1] == drawn[:-1, 1]).float().mean().item()
    assert runs == pytest.approx(0.25**2 + 0.75**2, abs=0.03)


def test_draws_depend_on_seed_step_and_name_alone() -> None:
    objectives = mixed_task(0.5).objectives
    turned = dict(reversed(objectives.items()))

    def draws(seed: int) -> list[list[bool]]:
        return [trained_in(seed, step, objectives).tolist() for step in range(64)]

    assert draws(1) == draws(1) != draws(2)
    assert draws(1) == [trained_in(1, step, turned).flip(0).tolist() for step in range(64)]


def test_denominators_are_infinite_where_nothing_is_trained() -> None:
    found = denominators(torch.tensor([120.0, 16.0]), torch.tensor([True, False]))
    assert found.tolist() == [120.0, float("inf")]


def test_an_objective_that_is_left_out_adds_exactly_nothing() -> None:
    task, batch = mixed_task(), make_batch(0, 50)
    loss, statistics, _ = task(batch, torch.tensor([11.0, float("inf")]))
    loss.backward()
    left_out = {name: gradient.clone() for name, gradient in gradients(task).items()}
    task.zero_grad()
    without = {**batch.targets, "next_sentence": batch.weightless().targets["next_sentence"]}
    alone, *_ = task(replace(batch, targets=without), torch.tensor([11.0, 4.0]))
    alone.backward()

    assert loss.item() == alone.item() == pytest.approx(statistics[0, 0].item() / 11)
    assert statistics[1, 0] > 0
    for name, gradient in gradients(task).items():
        assert torch.equal(left_out[name], gradient), name
        if name.startswith(HEAD):
            assert not left_out[name].any(), name


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_head_that_is_left_out_does_no_harm_even_if_it_is_not_finite(value: float) -> None:
    task, batch = mixed_task(), make_batch(0, 50)
    with torch.no_grad():
        task.model.heads["next_sentence"].classifier.bias.fill_(value)
    loss, statistics, _ = task(batch, torch.tensor([11.0, float("inf")]))
    loss.backward()

    assert loss.isfinite()
    assert not statistics[1, 0].isfinite()
    for name, gradient in gradients(task).items():
        assert gradient.isfinite().all(), name
        assert gradient.any() == (not name.startswith(HEAD)), name
    task(batch, torch.tensor([11.0, 4.0]))[0].backward()
    assert not gradients(task)[f"{HEAD}classifier.bias"].isfinite().all()


def test_heads_that_only_other_tasks_train_do_no_harm_either() -> None:
    """An objective of probability 1 that the tasks of some steps leave out."""
    configs = [MaskedLMConfig(kind="masked_lm"), NextSentenceConfig(kind="next_sentence")]
    torch.manual_seed(0)
    task = PretrainingTask(Bert(TINY), build_objectives(configs), sometimes=["next_sentence"])
    with torch.no_grad():
        task.model.heads["next_sentence"].classifier.bias.fill_(math.inf)
    task(make_batch(0, 50), torch.tensor([11.0, math.inf]))[0].backward()

    for name, gradient in gradients(task).items():
        assert gradient.isfinite().all(), name
        assert gradient.any() == (not name.startswith(HEAD)), name


def test_a_step_must_train_something(tmp_path: Path) -> None:
    from pipeline.settings import decode_run

    path = Path(__file__).parents[3] / "configs" / "quickstart.yaml"
    never = (
        "objectives=[{kind: masked_lm, probability: 0.5}, {kind: next_sentence, probability: 0.5}]"
    )
    with pytest.raises(ConfigError, match="give one of them probability 1"):
        decode_run(load(path, [never]))
