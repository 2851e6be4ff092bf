"""Rows that a model cannot train on are refused before the first step, with a way out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from small_run import prepare

from configs.schema import ConfigError, load
from pipeline.fitting import fit
from pipeline.opening import open_data
from pipeline.settings import Run, decode_run
from pipeline.training.start import build_task
from preprocessing.commands import run_preparation

LEFT_OUT = ("model.next_sentence=false", "objectives=[{kind: masked_lm}]")
CORRUPTIONS = {
    "spans": "{kind: spans}",
    "causal": "{kind: causal}",
    "every": "{kind: every}",
    "prefix": "{kind: prefix}",
    "unilm": "{kind: unilm, mode: sequence}",
    "dropped": "{kind: drop_tokens}",
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = prepare(tmp_path_factory.mktemp("fitting"))
    for _ in run_preparation(decoded(recipe).preparation, ("examples",)):
        pass
    return recipe


def decoded(recipe: Path, *changes: str) -> Run:
    sets = [
        f"examples.{name}={{length: 48, layout: {{kind: blocks}}, corruption: {corruption}}}"
        for name, corruption in CORRUPTIONS.items()
    ]
    return decode_run(load(recipe, [*sets, *LEFT_OUT, *changes]))


def phases(*names: str) -> str:
    common = "steps: 2, batch_rows: 8, learning_rate: 1e-3"
    return f"phases=[{', '.join(f'{{examples: {name}, {common}}}' for name in names)}]"


def test_targets_that_nothing_trains_are_left_out(recipe: Path) -> None:
    run = decoded(recipe, phases("spans", "pairs"))
    data = open_data(run)
    assert "span_boundary" in data.phases[0].open().arrays(range(4)).targets
    fitted = fit(run, data, build_task(run))
    for source in (*fitted.phases, *fitted.validation.values()):
        assert set(source.open().arrays(range(4)).targets) == {"masked_lm"}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("causal", "examples 'causal' have no target for masked_lm, only for causal_lm"),
        ("causal", "corruption 'causal' is for attention that heeds 'causal'; that of bert does"),
        ("every", "corruption 'every' is for attention that heeds 'others'"),
        ("prefix", "corruption 'prefix' is for attention that heeds 'seen_by'"),
        ("unilm", "corruption 'unilm' needs model.num_segments=6"),
        ("dropped", "leaves positions up to 56; it needs model.max_positions=56"),
    ],
)
def test_what_a_model_cannot_do_is_said(recipe: Path, name: str, told: str) -> None:
    run = decoded(recipe, phases("pairs", name))
    with pytest.raises(ConfigError, match=re.escape(told)) as refused:
        fit(run, open_data(run), build_task(run))
    assert "phases.1: " in str(refused.value)
    assert "phases.0" not in str(refused.value)
