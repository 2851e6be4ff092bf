"""ALBERT's layers that share: which do, what that costs, and what becomes of it elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from references import PADDING_IS_1, Theirs, unpack
from safetensors.torch import load_file
from torch import Tensor

from configs.schema import load
from pipeline.batch import Batch
from pipeline.flops import Meter, cost
from pipeline.huggingface import form_of
from pipeline.huggingface.export import export_model
from pipeline.huggingface.importing import import_model
from pipeline.huggingface.names import TensorError
from pipeline.huggingface.proof import make_probe
from pipeline.models import build_model
from pipeline.models.albert import AlbertConfig
from pipeline.nn.blocks import compile_blocks, save_memory
from pipeline.nn.model import PretrainingModel
from pipeline.nn.scores import logits
from pipeline.nn.sharing import first_layers
from pipeline.optim import Lamb
from pipeline.settings import decode_run

TINY = AlbertConfig(
    family="albert",
    vocab_size=100,
    embedding_size=8,
    hidden_size=16,
    num_layers=5,
    num_heads=4,
    intermediate_size=32,
    dropout=0.0,
    attention_dropout=0.0,
)
KINDS: Mapping[str, AlbertConfig] = {
    "all": TINY,
    "groups": replace(TINY, num_groups=2),
    "attention": replace(TINY, sharing="attention"),
    "ffn": replace(TINY, sharing="ffn"),
    "none": replace(TINY, sharing="none"),
}
EVERY = pytest.mark.parametrize("kind", KINDS)
PUBLISHED = AlbertConfig(family="albert", vocab_size=30000)
SHAPES = {
    "base": ({}, 11_683_584),
    "large": ({"hidden_size": 1024, "num_layers": 24, "num_heads": 16}, 17_683_968),
    "xlarge": ({"hidden_size": 2048, "num_layers": 24, "num_heads": 16}, 58_724_864),
    "xxlarge": ({"hidden_size": 4096, "num_layers": 12, "num_heads": 64}, 222_595_584),
}


def numel(model: PretrainingModel) -> int:
    """Distinct parameters of encoder and pooler, which is what the published counts speak of."""
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if not name.startswith("heads.") or ".pooler." in name
    )


def unbuilt(config: AlbertConfig) -> PretrainingModel:
    with torch.device("meta"):
        return build_model(config)


@pytest.mark.parametrize("size", SHAPES)
def test_bodies_have_the_published_sizes(size: str) -> None:
    shape, count = SHAPES[size]
    width = shape.get("hidden_size", 768)
    config = replace(PUBLISHED, **{**shape, "intermediate_size": 4 * width})
    assert numel(unbuilt(config)) == count


@pytest.mark.parametrize(
    ("sharing", "millions"), [("all", 11.68), ("attention", 63.65), ("ffn", 37.69), ("none", 89.65)]
)
def test_what_is_shared_says_how_many_weights_there_are(sharing: str, millions: float) -> None:
    model = unbuilt(replace(PUBLISHED, sharing=sharing))
    assert round(numel(model) / 1e6, 2) == millions


def test_layers_belong_to_groups_in_a_row() -> None:
    """Layer i to group int(i / (layers / groups)), in floats: so transformers reckons."""
    assert first_layers(18, 14)[8:11] == (8, 8, 10)  # 9 * 14 / 18 is 7, and 9 / (18 / 14) below it
    assert first_layers(6, 2) == (0, 0, 0, 3, 3, 3)
    assert first_layers(5, 2) == (0, 0, 0, 3, 3)
    assert first_layers(12, 5) == (0, 0, 0, 3, 3, 5, 5, 5, 8, 8, 10, 10)
    blocks = list(unbuilt(KINDS["groups"]).blocks)
    assert [blocks.index(block) for block in blocks] == [0, 0, 0, 3, 3]


@EVERY
def test_weights_move_to_transformers_and_back(kind: str) -> None:
    """Their duplicates are equal, and ours are one tensor again. Measured: 6.5e-8 at most."""
    config, form = KINDS[kind], form_of(KINDS[kind])
    torch.manual_seed(0)
    ours, theirs = build_model(config).eval(), Theirs(config).eval()
    table = form.name_table(config)
    written = table.to_huggingface(ours.state_dict())
    missing, unexpected = theirs.model.load_state_dict(written, strict=False)
    assert (missing, unexpected) == (["predictions.decoder.weight"], [])  # tied by their loader
    probe = make_probe(config.vocab_size, config.max_positions, config.num_segments)
    targets = {"masked_lm": probe.everywhere, "sentence_order": probe.firsts}
    batch = replace(probe.batch, targets=targets)
    with torch.no_grad():
        outputs, expected = ours(batch), theirs(unpack(batch))
    for name, scores in expected.items():
        torch.testing.assert_close(logits(outputs[name]), scores, atol=1e-6, rtol=0)
    shapes = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    read = table.from_huggingface(written, shapes)
    assert len({id(tensor) for tensor in read.values()}) == len(list(ours.parameters()))
    for name, tensor in ours.state_dict().items():
        assert torch.equal(read[name], tensor)


def test_copies_that_went_apart_are_refused_by_name() -> None:
    """As after a fine-tuning in transformers, where a group a layer shares nothing."""
    config = KINDS["attention"]
    model, table = build_model(config), form_of(config).name_table(config)
    written = table.to_huggingface(model.state_dict())
    name = "albert.encoder.albert_layer_groups.3.albert_layers.0.attention.key.weight"
    written[name][0, 0] += 1
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    with pytest.raises(TensorError) as error:
        table.from_huggingface(written, shapes)
    assert error.value.problems == (
        f"{name}: differs from {name.replace('3', '0')}, which it must be tied to",
    )


def test_an_exported_folder_loads_whole_and_is_tied_again(
    recipe_of: Callable[[str], Path], tmp_path: Path
) -> None:
    run = decode_run(load(recipe_of("albert")))
    config: AlbertConfig = replace(run.model, sharing="attention", num_layers=3)
    model, folder = build_model(config), tmp_path / "export"
    report = export_model(model, config, run.preparation.tokenizer_directory, folder, "card")
    assert report.architecture == "AlbertForPreTraining"
    assert report.num_parameters == sum(own.numel() for own in model.parameters())
    stored = load_file(folder / "model.safetensors")
    assert sum(name.endswith("attention.query.weight") for name in stored) == 3
    read, state = import_model(folder)
    assert read == config
    again = build_model(read)
    again.load_state_dict(state)
    for own, expected in zip(again.parameters(), model.parameters(), strict=True):
        assert torch.equal(own, expected)


@pytest.mark.parametrize("kind", ["attention", "ffn", "none"])
def test_folders_say_what_was_shared(kind: str) -> None:
    form = form_of(KINDS[kind])
    fields = form.config_to_huggingface(KINDS[kind], PADDING_IS_1)
    assert fields["num_hidden_groups"] == 5
    assert form.config_from_huggingface(fields, ["sop_classifier.classifier.weight"]) == KINDS[kind]
    with pytest.raises(ValueError, match="inner_group_num is 2; only 1"):
        form.config_from_huggingface({**fields, "inner_group_num": 2}, ())


def test_what_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ValueError, match="groups share whole layers; use sharing all"):
        replace(TINY, sharing="ffn", num_groups=2)
    with pytest.raises(ValueError, match="use fewer groups, or sharing none"):
        replace(TINY, num_groups=5)
    fields = form_of(TINY).config_to_huggingface(TINY, PADDING_IS_1)
    with pytest.raises(ValueError, match="layers that share a part have a group each"):
        form_of(TINY).config_from_huggingface({**fields, "lexmill_sharing": "ffn"}, ())


def probe_of(config: AlbertConfig) -> Batch:
    probe = make_probe(config.vocab_size, config.max_positions, config.num_segments)
    return replace(probe.batch, targets={"masked_lm": probe.everywhere})


def gradients(model: PretrainingModel, batch: Batch) -> dict[str, Tensor]:
    """Of the sum of the squared logits, with dropout from the same seed."""
    model.train().zero_grad()
    torch.manual_seed(1)
    logits(model(batch)["masked_lm"]).square().sum().backward()
    return {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


@EVERY
def test_a_shared_gradient_is_the_sum_over_its_places(kind: str) -> None:
    """And computing blocks again changes no bit of it."""
    torch.manual_seed(0)
    model, apart = build_model(KINDS[kind]), build_model(KINDS["none"])
    apart.load_state_dict(model.state_dict())
    batch = probe_of(TINY)
    own, single = gradients(model, batch), gradients(apart, batch)
    names = {parameter: name for name, parameter in model.named_parameters()}
    summed: dict[str, Tensor] = {}
    for place, parameter in model.named_parameters(remove_duplicate=False):
        if place in single:
            first = names[parameter]
            summed[first] = summed.get(first, torch.tensor(0.0)) + single[place]
    assert summed.keys() == own.keys()
    for name, gradient in own.items():
        torch.testing.assert_close(gradient, summed[name], atol=1e-5, rtol=1e-5, msg=name)
    save_memory(model, "full")
    again = gradients(model, batch)
    assert all(torch.equal(again[name], gradient) for name, gradient in own.items())


@EVERY
def test_flops_count_every_application(kind: str) -> None:
    """A layer's work is the same whoever else has its weights; the projection of E is counted."""
    batch = probe_of(TINY)
    measured = Meter(cost(unbuilt(KINDS[kind])), "dense", fused=False)(batch)
    real, padding = 37, 3
    targets = len(batch.targets["masked_lm"].labels)
    blocks = 5 * (4 * 16 * 16 + 2 * 16 * 32) + 8 * 16
    head = 16 * 8 + 8 * 100
    pairs = 5 * 2 * 16
    assert measured.real == 6 * (blocks * real + head * targets + pairs * (24**2 + 13**2))
    assert measured.spent == 6 * (blocks * (real + padding) + head * targets + pairs * 40**2)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@EVERY
def test_all_layers_are_one_compiled_code(
    kind: str, precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What enters the first block is like what enters the others, under autocast too."""
    graphs = 0

    def count(graph: torch.fx.GraphModule, examples: list[Tensor]) -> Any:
        nonlocal graphs
        graphs += 1
        return graph.forward

    torch.manual_seed(0)
    model, batch = build_model(KINDS[kind]), probe_of(TINY)
    narrow = precision != torch.float32
    with torch.autocast("cpu", precision, enabled=narrow):
        plain = gradients(model, batch)
        torch._dynamo.reset()
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=count))
        compile_blocks(model)
        compiled = gradients(model, batch)
    torch._dynamo.reset()
    assert graphs == 1
    for name, gradient in plain.items():
        torch.testing.assert_close(compiled[name], gradient, msg=name)


@EVERY
def test_a_shared_tensor_moves_once_by_one_trust_ratio(kind: str) -> None:
    """LAMB's first step: each adapted tensor moves by the rate times its own length."""
    torch.manual_seed(0)
    model = build_model(KINDS[kind])
    optimizer = Lamb(model.named_parameters(), lr=0.01, weight_decay=0.0)
    before = {name: own.detach().clone() for name, own in model.named_parameters()}
    gradients(model, probe_of(TINY))
    optimizer.step()
    weights = {name: own for name, own in model.named_parameters() if own.ndim > 1}
    moved = {name for name, own in weights.items() if not name.startswith("heads.sentence_order")}
    ratios = optimizer.trust_ratios()
    assert {name for name in ratios if name.endswith("weight") and name in moved} == moved
    for name in moved:
        change = (weights[name].detach() - before[name]).norm() / before[name].norm()
        assert float(change) == pytest.approx(0.01, rel=1e-4), name
    groups = {"all": 1, "groups": 2, "attention": 1, "ffn": 5, "none": 5}[kind]
    assert sum(name.endswith("query.weight") for name in ratios) == groups
