"""Each family beside its reference: logits, numbers of parameters, folders."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from family_cases import FAMILIES, Family
from references import PADDING_IS_1, Reference, unpack

from pipeline.huggingface import form_of
from pipeline.huggingface.proof import make_probe
from pipeline.models import ModelConfig, build_model
from pipeline.nn.scores import logits

LIKE = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())


def reference_of(family: Family, config: ModelConfig) -> Reference:
    """Random weights, none of which stands where it was initialized."""
    torch.manual_seed(0)
    made = family.reference(config, PADDING_IS_1).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=1.6 / config.hidden_size)
    return made


@LIKE
@pytest.mark.parametrize(("number", "shape"), enumerate(["tiny", "odd", "based"]))
def test_packed_logits_are_those_of_transformers_unpacked(
    family: Family, number: int, shape: str
) -> None:
    config: ModelConfig = getattr(family, shape)
    theirs = reference_of(family, config)
    ours = build_model(config).eval()
    ours.load_state_dict(theirs.ours())
    probe = make_probe(config.vocab_size, config.max_positions, config.num_segments)
    answers = form_of(config).answers(config)
    places = {True: probe.firsts, False: probe.everywhere}
    targets = {name: places[answer.per_sequence] for name, answer in answers.items()}
    targets |= family.asked(probe)
    assert targets.keys() == set(config.outputs)
    batch = replace(probe.batch, targets=targets)
    with torch.no_grad():
        outputs, expected = ours(batch), theirs(unpack(batch))
    assert expected.keys() == targets.keys()
    for name, scores in expected.items():
        bound = 5 * family.measured[number]  # other processors round otherwise
        torch.testing.assert_close(logits(outputs[name]), scores, atol=bound, rtol=0)


@pytest.mark.parametrize(
    ("name", "without", "pooler"),
    [
        ("albert", {"sentence_order": False}, "albert.pooler"),
        ("bert", {"next_sentence": False}, "bert.pooler.dense"),
        ("ernie", {"next_sentence": False}, "ernie.pooler.dense"),
        ("macbert", {}, "bert.pooler.dense"),
        ("roberta", {}, "roberta.pooler.dense"),
        ("spanbert", {}, "bert.pooler.dense"),
    ],
)
def test_a_pooler_that_no_head_has_is_left_aside_on_import(
    name: str, without: dict[str, bool], pooler: str
) -> None:
    config = replace(FAMILIES[name].tiny, **without)
    state = build_model(config).state_dict()
    table = form_of(config).name_table(config)
    published = table.to_huggingface(state)
    published |= {f"{pooler}.{kind}": torch.ones(1) for kind in ("weight", "bias")}
    shapes = {name: tensor.shape for name, tensor in state.items()}
    found = table.from_huggingface(published, shapes)
    assert found.keys() == state.keys() - table.ours_alone
    assert all(torch.equal(found[name], state[name]) for name in found)


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
    fields = form.config_to_huggingface(config, PADDING_IS_1)
    names = form.name_table(config).names.values()
    assert form.config_from_huggingface(fields, names) == config
