import math

import pytest
import torch
from pydantic import TypeAdapter

from configs.schema import ConfigError, resume_classes
from pipeline.batch import IGNORED, Batch, Targets
from pipeline.objectives import ObjectiveConfig, build_objectives
from pipeline.objectives.base import classification_loss
from pipeline.objectives.masked_lm import MaskedLMConfig
from pipeline.objectives.next_sentence import NextSentenceConfig


def test_sums_count_real_targets_only() -> None:
    # Softmax of (0, ln 3) is (1/4, 3/4).
    logits = torch.tensor([[0.0, math.log(3)]]).repeat(4, 1)
    loss = classification_loss(logits, torch.tensor([1, 0, 1, IGNORED]))
    assert loss.total.item() == pytest.approx(2 * math.log(4 / 3) + math.log(4), rel=1e-6)
    assert (loss.count.item(), loss.correct.item()) == (3, 2)


def test_half_precision_logits_are_summed_in_fp32() -> None:
    logits = torch.zeros(1000, 30522, dtype=torch.bfloat16)
    total = classification_loss(logits, torch.zeros(1000, dtype=torch.long)).total
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(1000 * math.log(30522), rel=1e-6)


def test_ignored_targets_leave_no_loss_and_no_gradient() -> None:
    logits = torch.randn(3, 5, requires_grad=True)
    loss = classification_loss(logits, torch.full((3,), IGNORED))
    loss.total.backward()
    assert (loss.total.item(), loss.count.item(), loss.correct.item()) == (0, 0, 0)
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_objectives_read_logits_and_targets_of_their_name() -> None:
    places = torch.tensor([0, 1])
    batch = Batch(
        *[torch.zeros(1, 2, dtype=torch.long)] * 4,
        targets={
            "masked_lm": Targets(places, torch.tensor([2, 0])),
            "next_sentence": Targets(places, torch.tensor([1, IGNORED])),
        },
    )
    logits = {"masked_lm": torch.zeros(2, 8), "next_sentence": torch.tensor([[0.0, 1], [0, 0]])}
    objectives = build_objectives(
        [NextSentenceConfig(kind="next_sentence", weight=0.5), MaskedLMConfig(kind="masked_lm")]
    )
    assert list(objectives) == ["next_sentence", "masked_lm"]
    assert [objective.weight for objective in objectives.values()] == [0.5, 1.0]
    masked_lm = objectives["masked_lm"](logits, batch)
    assert masked_lm.total.item() == pytest.approx(2 * math.log(8))
    assert (masked_lm.count.item(), masked_lm.correct.item()) == (2, 1)
    next_sentence = objectives["next_sentence"](logits, batch)
    assert next_sentence.total.item() == pytest.approx(math.log(1 + math.exp(-1)))
    assert (next_sentence.count.item(), next_sentence.correct.item()) == (1, 1)


def test_weights_may_change_on_resume_and_kinds_may_not() -> None:
    leaves = resume_classes(MaskedLMConfig(kind="masked_lm"), "objectives.0")
    assert leaves == {
        "objectives.0.kind": ("masked_lm", "frozen"),
        "objectives.0.weight": (1.0, "recorded"),
        "objectives.0.probability": (1.0, "recorded"),
    }


def test_the_section_decodes_by_kind() -> None:
    section = TypeAdapter(tuple[ObjectiveConfig, ...])
    text = '[{"kind": "masked_lm"}, {"kind": "next_sentence", "weight": 0.5}]'
    assert section.validate_json(text) == (
        MaskedLMConfig(kind="masked_lm"),
        NextSentenceConfig(kind="next_sentence", weight=0.5),
    )
    for bad in ('[{"kind": "masked"}]', '[{"kind": "masked_lm", "weight": 0}]', '[{"weight": 1}]'):
        with pytest.raises(ValueError, match="validation error"):
            section.validate_json(bad)


def test_none_and_repeated_objectives_are_refused() -> None:
    with pytest.raises(ConfigError, match="give at least one"):
        build_objectives([])
    with pytest.raises(ConfigError, match="masked_lm is given more than once"):
        build_objectives([MaskedLMConfig(kind="masked_lm")] * 2)
