import math
from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter

from configs.schema import resume_classes
from pipeline.batch import IGNORED, Batch, Targets
from pipeline.objectives import ObjectiveConfig, build_objectives
from pipeline.objectives.classification import ClassificationConfig, Question
from preprocessing.corruption import LabelledConfig
from preprocessing.layouts import (
    DialoguesConfig,
    DiscourseRelationConfig,
    RelevanceConfig,
    SentenceDistanceConfig,
    SentenceOrderConfig,
    SentenceReorderingConfig,
)


def test_each_question_reads_its_own_logits_and_targets() -> None:
    names = get_args(Question)
    places = torch.tensor([0, 1])
    batch = Batch(
        *[torch.zeros(1, 2, dtype=torch.long)] * 4,
        targets={
            name: Targets(places, torch.tensor([number % 3, IGNORED]))
            for number, name in enumerate(names)
        },
    )
    # Softmax of (0, ln 2, 0) is (1/4, 1/2, 1/4).
    logits = {name: torch.tensor([[0.0, math.log(2), 0.0]] * 2) for name in names}
    objectives = build_objectives([ClassificationConfig(kind=name) for name in names])
    assert tuple(objectives) == names
    for number, objective in enumerate(objectives.values()):
        loss = objective(logits, batch)
        right = number % 3 == 1
        assert loss.total.item() == pytest.approx(math.log(2 if right else 4))
        assert (loss.count.item(), loss.correct.item()) == (1, right)


def test_every_label_of_the_examples_has_its_question() -> None:
    layouts = (
        DialoguesConfig(kind="dialogues", speakers=("Q:", "A:")),
        DiscourseRelationConfig(kind="discourse_relation"),
        RelevanceConfig(kind="relevance"),
        SentenceDistanceConfig(kind="sentence_distance"),
        SentenceOrderConfig(kind="sentence_order"),
        SentenceReorderingConfig(kind="sentence_reordering"),
    )
    labels = {layout.label() for layout in layouts}
    assert labels | set(LabelledConfig(kind="labelled").asked()) == set(get_args(Question))


def test_the_section_decodes_questions_by_kind() -> None:
    section = TypeAdapter(tuple[ObjectiveConfig, ...])
    text = (
        '[{"kind": "masked_lm"}, {"kind": "relevance", "weight": 0.5}, {"kind": "capitalization"}]'
    )
    decoded = section.validate_json(text)
    assert decoded[1:] == (
        ClassificationConfig(kind="relevance", weight=0.5),
        ClassificationConfig(kind="capitalization"),
    )
    with pytest.raises(ValueError, match="validation error"):
        section.validate_json('[{"kind": "capitals"}]')
    leaves = resume_classes(decoded[1], "objectives.1")
    assert leaves["objectives.1.kind"] == ("relevance", "frozen")
    assert leaves["objectives.1.weight"] == (0.5, "recorded")
