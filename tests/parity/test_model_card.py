"""The model card of every family: its data, its recipe and its figures, or that there are none."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

import configs
from configs.schema import load
from pipeline.evaluation.language_modeling import (
    EVALUATION_FILE,
    Evaluation,
    ObjectiveResult,
    SetResult,
)
from pipeline.huggingface.card import model_card
from pipeline.settings import Run, decode_run
from pipeline.training.checkpoints.checkpoint import Origin
from preprocessing.storage import write_json

FOLDER = Path(configs.__file__).parent / "pretrain"
RECIPES = sorted(FOLDER.glob("*/*-tiny.yaml"))
RESULT = SetResult(
    name="heldout",
    rows=4,
    targets=1200,
    loss=3.25,
    perplexity=25.79,
    accuracy=0.4,
    uniform=8.3,
    unigram=6.5,
    shuffled=5.5,
    below_unigram=3.25,
    below_shuffled=2.25,
    others={"sentence_order": ObjectiveResult(64, 0.5, 0.75)},
)


@pytest.fixture(autouse=True)
def _origin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The origin of the weights, which a checkpoint on the disk would say."""
    origin = Origin(7, 12345, "abc", "def")
    monkeypatch.setattr("pipeline.huggingface.card.read_origin", lambda checkpoint: origin)


def run_of(recipe: Path, directory: Path) -> Run:
    run = decode_run(load(recipe, [f"corpus.directory={directory}"]))
    return replace(run, output=replace(run.output, directory=directory))


def measure(directory: Path, weights: str) -> None:
    evaluation = Evaluation("step-7", 7, weights, None, (RESULT,), ())
    write_json(directory / EVALUATION_FILE, asdict(evaluation))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_it_holds_the_recipe_and_every_figure(tmp_path: Path, recipe: Path) -> None:
    run = run_of(recipe, tmp_path)
    measure(tmp_path, "abc")
    card = model_card(run, tmp_path)
    assert f"Weights after step 7 of {run.total_steps}, seed 12345; " in card
    shape, said = (yaml.safe_load(part.split("```")[0]) for part in card.split("```yaml\n")[1:])
    plain = run.plain()
    assert shape == plain["model"]
    names = ("tokenizer", "examples", "objectives", "optimizer", "schedule")
    assert said == {name: plain[name] for name in names}
    assert f"| 0 | {', '.join(run.phases[0].sets)} | {run.phases[0].steps} |" in card
    assert "| heldout | masked_lm | 1,200 | 3.2500 | 40.00% |" in card
    assert "| heldout | sentence_order | 64 | 0.5000 | 75.00% |" in card
    assert "| heldout | 25.79 | 6.5000 | 5.5000 |" in card


def test_figures_of_other_weights_are_not_its_own(tmp_path: Path) -> None:
    run = run_of(FOLDER / "bert" / "base-tiny.yaml", tmp_path)
    assert "Not yet measured." in model_card(run, tmp_path)
    measure(tmp_path, "of an earlier step")
    card = model_card(run, tmp_path)
    assert "Not yet measured." in card
    assert "heldout" not in card
    assert "The prepared data was not at hand" in card
