from __future__ import annotations

from pathlib import Path

import pytest
from small_run import prepare


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared recipe; tests give it output directories of their own."""
    return prepare(tmp_path_factory.mktemp("prepared"))
