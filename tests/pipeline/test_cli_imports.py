"""What the command loads: a stage, or the help, needs none of the heavy libraries."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.settings import Run
from preprocessing.storage import Manifest


def python(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, check=False
    )


WITHOUT_TORCH = """
import sys
for name in ("torch", "deepspeed", "transformers", "wandb"):
    sys.modules[name] = None  # whoever imports it fails
from {module} import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("module", ["pipeline.cli", "preprocessing.console"])
def test_stages_run_where_torch_cannot_be_imported(
    recipe: Callable[[], Run], tmp_path: Path, module: str
) -> None:
    path = recipe().name
    data = f"corpus.directory={tmp_path / 'data'}"
    done = python("-c", WITHOUT_TORCH.format(module=module), "ingest", path, data, "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["stage"] == "ingest"
    assert Manifest.read(tmp_path / "data" / "documents").totals()["rows"] == 150


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, pipeline.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
    heavy = "{'torch', 'deepspeed', 'transformers', 'wandb', 'matplotlib'}"
    done = python("-c", f"{code}print('loaded:', {heavy} & set(sys.modules))")

    assert done.stdout.splitlines()[-1] == "loaded: set()", done.stderr
