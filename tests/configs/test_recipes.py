"""Every recipe that is shipped loads, and says at its top what it is."""

from pathlib import Path

import pytest

import configs
from configs.schema import load
from preprocessing.settings import decode_preparation

FOLDER = Path(configs.__file__).parent
RECIPES = sorted(FOLDER.rglob("*.yaml"))


def test_there_are_recipes() -> None:
    assert FOLDER / "quickstart.yaml" in RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_recipe_decodes(path: Path) -> None:
    document = load(path)
    assert document.sections
    if "model" in document.sections:
        settings = pytest.importorskip("pipeline.settings", reason="needs the train extra")
        run = settings.decode_run(document)
        assert run.total_steps > 0
        assert run.preparation.examples
    elif "corpus" in document.sections:
        assert decode_preparation(document).examples


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_recipe_opens_with_what_it_is(path: Path) -> None:
    head = path.read_text().splitlines()[0]
    assert head.startswith("# ")
    assert len(head) > 10
