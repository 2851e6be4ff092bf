from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "pipeline" / "training"))

from family_cases import FAMILIES
from family_runs import prepare_family


@pytest.fixture(scope="session")
def recipe_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The recipe of a family's small run by its name, prepared when first asked for."""
    root = tmp_path_factory.mktemp("families")
    return cache(lambda name: prepare_family(root / name, name, FAMILIES[name]))
