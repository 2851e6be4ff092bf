"""The twins' corpus, and each twin trained by the local engine; ranks are the training tests'."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared recipe; tests give it output directories of their own."""
    from seam_runs import prepare_twins

    return prepare_twins(tmp_path_factory.mktemp("twins"))


@pytest.fixture(scope="session")
def local(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each twin trained by the local engine: the reference of the others; not to be written to."""
    from seam_runs import TwinJob, run_twin
    from twins import TWINS

    root = tmp_path_factory.mktemp("local")
    for twin in TWINS:
        run_twin(recipe, TwinJob(twin, root / twin, ("train.engine=local",)))
    return root
