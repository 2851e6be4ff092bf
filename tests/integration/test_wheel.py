"""What is installed from a wheel does all that the source tree does, from any directory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import pipeline
from launchers.local import free_port
from pipeline.training.tracking import read_metrics

pytestmark = pytest.mark.slow

ROOT = Path(pipeline.__file__).parent.parent
QUICKSTART = "configs/quickstart.yaml"
SMALL = (
    "corpus.validation.heldout.share=0.1",
    "tokenizer.vocab_size=300",
    "model.vocab_size=300",
    "model.hidden_size=32",
    "model.intermediate_size=64",
    "phases.0.steps=2",
    "phases.0.batch_rows=16",
    "schedule.warmup_steps=1",
    "train.micro_batch_rows=8",
    "tracking.mode=disabled",
    "evaluation.max_rows=16",
)


TIMINGS = ("_per_second", "mfu", "hfu")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources, so that nothing is left among them."""
    place = tmp_path_factory.mktemp("wheel")
    ours = ("configs", "preprocessing", "pipeline", "launchers")
    for name in ours:
        shutil.copytree(
            ROOT / name, place / "source" / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for path in ROOT.glob("*"):
        if path.is_file():
            shutil.copy(path, place / "source")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(place)]
    subprocess.run([*command, str(place / "source")], check=True, capture_output=True)
    (wheel,) = place.glob("lexmill-*.whl")
    return wheel


class Installed:
    """The wheel in a folder of its own, and an empty working directory elsewhere."""

    def __init__(self, folder: Path, working: Path) -> None:
        self.folder = folder
        self.working = working
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(folder),
            "OMP_NUM_THREADS": "1",
            "DS_ACCELERATOR": "cpu",
        }

    def __call__(self, *words: str) -> str:
        """Run a command there; returns its standard output."""
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            cwd=self.working,
            env=self._environment,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def lexmill(self, *words: str) -> str:
        return self(sys.executable, str(self.folder / "bin" / "lexmill"), *words)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target"]
    subprocess.run([*command, str(folder), str(wheel)], check=True, capture_output=True)
    return Installed(folder, tmp_path_factory.mktemp("elsewhere"))


def test_wheel_holds_every_module_recipe_and_template_and_nothing_else(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        str(path.relative_to(ROOT))
        for package in ("configs", "preprocessing", "pipeline", "launchers")
        for pattern in ("**/*.py", "**/*.yaml", "templates/*")
        for path in (ROOT / package).glob(pattern)
    }

    assert {"configs/quickstart.yaml", "pipeline/templates/report.html.j2"} <= expected
    assert held == expected


def test_command_comes_from_the_wheel(installed: Installed) -> None:
    code = "import configs, preprocessing, pipeline, launchers\nprint(pipeline.__file__)"

    assert installed(sys.executable, "-c", code).startswith(str(installed.folder))
    assert "prepare:" in installed.lexmill("--help")


def test_quickstart_is_found_without_a_source_tree(installed: Installed) -> None:
    printed = installed.lexmill("train", QUICKSTART, "--print-config", "seed=7")

    assert "seed: 7" in printed
    assert "pairs-64" in printed


def test_whole_road_from_the_wheel(installed: Installed) -> None:
    (installed.working / "demo").mkdir()
    corpus = "demo/documentation.jsonl"
    installed(sys.executable, "-m", "preprocessing.documentation", corpus, "--megabytes", "0.3")
    result = json.loads(installed.lexmill("run", QUICKSTART, "--json", "--ranks=2", *SMALL))

    assert set(result) == {"evaluation", "export", "report"}
    assert (installed.working / result["report"]).stat().st_size > 1000
    tool = Path(sys.executable).with_name("deepspeed")
    installed(
        str(tool) if tool.exists() else "deepspeed",
        "--num_accelerators=2",
        f"--master_port={free_port()}",
        "--module",
        "pipeline.train",
        QUICKSTART,
        "output.directory=again",
        *SMALL,
    )
    first, again = (
        [
            {key: value for key, value in record.items() if not key.endswith(TIMINGS)}
            for record in read_metrics(installed.working / output)
            if record["kind"] == "train"
        ]
        for output in ("demo/run", "again")
    )
    assert [record["step"] for record in again] == [2]
    assert again == first
