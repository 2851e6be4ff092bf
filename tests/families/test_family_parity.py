"""Each family beside its class of transformers: logits, numbers of parameters, folders."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from family_cases import FAMILIES, Family
from torch import Tensor

from pipeline.huggingface import form_of
from pipeline.huggingface.proof import make_probe
from pipeline.huggingface.tokenizer import TokenizerInfo
from pipeline.models import ModelConfig, build_model
from pipeline.nn.model import PretrainingModel
from pipeline.nn.scores import logits

IDS = {"pad_token": 1, "cls_token": 0, "sep_token": 2, "mask_token": 3}
LIKE = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())


def theirs_of(config: ModelConfig) -> Any:
    """Their class with random weights, none of which stands where it was initialized."""
    info = TokenizerInfo(50, {}, IDS, lowercase=True)
    fields = form_of(config).config_to_huggingface(config, info)
    kind = getattr(transformers, fields["architectures"][0])
    torch.manual_seed(0)
    model = kind(kind.config_class(**fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=1.6 / config.hidden_size)
    return model


def ours_of(config: ModelConfig, theirs: Any) -> PretrainingModel:
    """Our model with their weights."""
    ours = build_model(config).eval()
    shapes = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    table = form_of(config).name_table(config)
    ours.load_state_dict(table.from_huggingface(theirs.state_dict(), shapes))
    return ours


@LIKE
@pytest.mark.parametrize("shape", ["tiny", "odd", "based"])
def test_packed_logits_are_those_of_transformers_unpacked(family: Family, shape: str) -> None:
    config: ModelConfig = getattr(family, shape)
    theirs = theirs_of(config)
    ours = ours_of(config, theirs)
    probe = make_probe(config.vocab_size, config.max_positions, config.num_segments)
    answers = form_of(config).answers(config)
    places = {True: probe.firsts, False: probe.everywhere}
    asked = {name: places[answer.per_sequence] for name, answer in answers.items()}
    expected: dict[str, list[Tensor]] = {name: [] for name in answers}
    with torch.no_grad():
        outputs = ours(replace(probe.batch, targets=asked))
        for ids, segments, length in zip(probe.ids, probe.segment_ids, probe.lengths, strict=True):
            given = theirs(
                input_ids=ids[None],
                token_type_ids=segments[None],
                attention_mask=(torch.arange(len(ids)) < length).long()[None],
            )
            for name, answer in answers.items():
                values = getattr(given, answer.field)
                expected[name].append(values if answer.per_sequence else values[0, :length])
    assert expected.keys() == set(config.outputs)
    for name, parts in expected.items():
        torch.testing.assert_close(logits(outputs[name]), torch.cat(parts), atol=1e-5, rtol=0)


@LIKE
def test_parameters_are_as_many_as_published(family: Family) -> None:
    for config, count in family.published.values():
        with torch.device("meta"):
            model = build_model(config)
        assert sum(parameter.numel() for parameter in model.parameters()) == count


@LIKE
@pytest.mark.parametrize("shape", ["tiny", "odd"])
def test_configurations_come_back_whole(family: Family, shape: str) -> None:
    config: ModelConfig = getattr(family, shape)
    form = form_of(config)
    fields = form.config_to_huggingface(config, TokenizerInfo(50, {}, IDS, lowercase=True))
    names = form.name_table(config).names.values()
    assert form.config_from_huggingface(fields, names) == config
