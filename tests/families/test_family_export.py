"""Each family, trained for a few steps, exports, loads in transformers, and comes back."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest
import torch
import transformers
from family_cases import FAMILIES

from configs.schema import load
from pipeline.commands import evaluate_run, export_run
from pipeline.evaluation.checkpoints import load_model, newest
from pipeline.huggingface.importing import import_model
from pipeline.huggingface.proof import TEXTS, load_strictly, quiet
from pipeline.settings import Run, decode_run
from pipeline.training.start import start_training
from preprocessing.vocabulary import Vocabulary

SHORT = ("phases.0.steps=2", "phases.1.steps=2")


class Exported(NamedTuple):
    """A run, and the folder that it was exported to."""

    run: Run
    folder: Path


@pytest.fixture(scope="module", params=FAMILIES)
def exported(request: pytest.FixtureRequest, recipe_of: Callable[[str], Path]) -> Exported:
    """Four steps of training, evaluated and exported as ``lexmill run`` does."""
    recipe = recipe_of(request.param)
    run = decode_run(load(recipe, [*SHORT, f"output.directory={recipe.parent / 'exported'}"]))
    with mock.patch.dict(os.environ, {"OMP_NUM_THREADS": "1"}):
        start_training(run)
    evaluate_run(run, None)
    return Exported(run, Path(export_run(run, None)["directory"]))


def test_the_folder_loads_whole_and_imports_identical_tensors(exported: Exported) -> None:
    run, folder = exported
    with quiet():
        load_strictly(folder)  # nothing missing, unexpected or mismatched
    config, tensors = import_model(folder)
    assert config == run.model
    trained = load_model(run, newest(run)).model.state_dict()
    assert tensors.keys() == trained.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, trained[name]), name


def test_the_tokenizer_gives_the_same_ids(exported: Exported) -> None:
    run, folder = exported
    ours = Vocabulary.load(run.preparation.tokenizer_directory)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    plain = [text for text in TEXTS if "[" not in text]
    for text, expected in zip(plain, ours.encode(plain), strict=True):
        ids = theirs(text)["input_ids"]
        assert ids[1:-1] == expected
        assert (ids[0], ids[-1]) == (ours.id_of("start"), ours.id_of("separator"))
    for role, token in (("pad", theirs.pad_token_id), ("mask", theirs.mask_token_id)):
        assert token == ours.id_of(role)


def test_the_card_says_data_recipe_and_figures(exported: Exported) -> None:
    run, folder = exported
    card = (folder / "README.md").read_text()
    assert f"tags:\n- {run.model.family}" in card
    assert "`train`: " in card
    assert " documents, " in card
    for number, phase in enumerate(run.phases):
        assert f"| {number} | {phase.examples} | 2 | {phase.batch_rows} | 0.006 |" in card
    assert f"hidden_size: {run.model.hidden_size}" in card
    assert "Not yet measured" not in card
    for name in run.model.outputs:
        assert f"| heldout | {name} | " in card
