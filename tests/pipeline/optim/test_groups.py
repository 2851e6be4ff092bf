"""Which tensors decay and adapt: by default, by preset, and by the rules of a recipe."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from torch import nn

from configs.schema import ConfigError
from pipeline.optim import (
    AdamWConfig,
    LambConfig,
    LionConfig,
    OptimizerConfig,
    build_optimizer,
    describe_groups,
)
from pipeline.optim.groups import DecayRule, LambRule
from pipeline.optim.table import treatment_table


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 4)
        self.segments = nn.Embedding(2, 4)
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.norm = nn.LayerNorm(4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.decoder = nn.Linear(4, 11)
        self.decoder.weight = self.words.weight


def treatments(config: OptimizerConfig) -> dict[str, tuple[bool, bool]]:
    """``(decays, adapted)`` by name, the same in table and optimizer."""
    model = Model()
    told = {row.name: (row.decays, row.adapted) for row in describe_groups(config, model)}
    found = {}
    names = {tensor: name for name, tensor in model.named_parameters()}
    groups = build_optimizer(config, model).param_groups
    for group in groups:
        treatment = (group["weight_decay"] > 0, group.get("adapt", False))
        found |= {names[tensor]: treatment for tensor in group["params"]}
        assert group["lr"] == 0
    assert len(groups) == len(set(found.values()))
    assert found == told
    return told


MATRICES = {"words.weight", "segments.weight", "blocks.0.weight", "blocks.1.weight"}
VECTORS = {"blocks.0.bias", "blocks.1.bias", "norm.weight", "norm.bias", "decoder.bias"}


def test_by_default_matrices_decay_and_adapt_and_vectors_do_neither() -> None:
    expected = dict.fromkeys(MATRICES, (True, True)) | dict.fromkeys(VECTORS, (False, False))
    assert treatments(LambConfig(kind="lamb")) == expected


def test_presets_adapt_what_does_not_decay() -> None:
    expected = dict.fromkeys(MATRICES, (True, True)) | dict.fromkeys(VECTORS, (False, True))
    assert treatments(LambConfig(kind="lamb", preset="nvlamb")) == expected


def test_the_first_rule_that_matches_wins_over_the_default() -> None:
    rules = (
        LambRule(match="segments.*", decay=False),
        LambRule(match="blocks.1.bias", decay=True, adapt=False),
        LambRule(match="*.bias", adapt=True),
        LambRule(match="words.weight", adapt=False),
    )
    told = treatments(LambConfig(kind="lamb", rules=rules))
    assert told == {
        "words.weight": (True, False),
        "segments.weight": (False, False),  # what does not decay is not adapted, with this preset
        "blocks.0.weight": (True, True),
        "blocks.0.bias": (False, True),
        "blocks.1.weight": (True, True),
        "blocks.1.bias": (True, False),
        "norm.weight": (False, False),
        "norm.bias": (False, True),
        "decoder.bias": (False, True),
    }
    assert len(set(told.values())) == 4


def test_a_rule_that_makes_a_vector_decay_makes_it_adapt() -> None:
    config = LambConfig(kind="lamb", rules=(LambRule(match="norm.*", decay=True),))
    assert treatments(config)["norm.weight"] == (True, True)


@pytest.mark.parametrize("kind", [AdamWConfig, LionConfig])
def test_optimizers_without_trust_ratio_know_rules_of_decay(
    kind: type[AdamWConfig | LionConfig],
) -> None:
    name = "adamw" if kind is AdamWConfig else "lion"
    config = kind(kind=name, rules=(DecayRule(match="words.*", decay=False),))  # type: ignore[arg-type]
    told = treatments(config)
    assert {name for name, (decays, _) in told.items() if decays} == MATRICES - {"words.weight"}
    assert not any(adapted for _, adapted in told.values())


def test_rules_that_come_to_nothing_are_all_told() -> None:
    rules = (
        LambRule(match="*.bias", adapt=True),
        LambRule(match="norm.bias", adapt=False),
        LambRule(match="segment.weight", decay=False),
        LambRule(match="frozen.weight", decay=False),
    )
    with pytest.raises(ConfigError) as caught:
        build_optimizer(LambConfig(kind="lamb", rules=rules), Model())
    late, misspelt, frozen = caught.value.problems
    assert "optimizer.rules.1.match: 'norm.bias' comes too late" in late
    assert "optimizer.rules.2.match: 'segment.weight' is the name of no trained tensor" in misspelt
    assert "near: segments.weight" in misspelt
    assert "optimizer.rules.3" in frozen


def test_a_rule_must_say_something() -> None:
    with pytest.raises(ValueError, match="says decay or adapt"):
        LambRule(match="*")


def test_the_table_has_a_line_for_each_treatment() -> None:
    config = LambConfig(kind="lamb", rules=(LambRule(match="segments.*", decay=False),))
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(treatment_table(describe_groups(config, Model()), config.weight_decay))
    lines = [line.split() for line in console.export_text().splitlines()]
    matrices = 11 * 4 + 2 * 16
    vectors = 2 * 4 + 4 + 4 + 11
    assert lines[0] == ["tensors", "parameters", "decay", "trust", "ratio", "names"]
    assert lines[2] == ["3", str(matrices), "0.01", "yes", "words.weight,", "blocks.*.weight"]
    assert lines[3] == [
        *("6", str(vectors + 8), "0", "no", "segments.weight,", "blocks.*.bias,", "...", "(+3)")
    ]
