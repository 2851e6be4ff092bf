"""What a run says of itself: ``metrics.jsonl`` always, Weights & Biases where it is wanted.

One line a record: ``{"kind": "train", "step": 10, "loss": ...}``. The kinds are ``train``,
``validation`` (one line a set) and ``event``. A resumed run continues the same file and the same
W&B run; records after the step it resumed from are dropped first, so no step stands there twice.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline.sections import TrackingConfig
from preprocessing.storage import write_text

METRICS_FILE = "metrics.jsonl"


class Tracker:
    """Records of one training; only rank 0 has one."""

    def __init__(
        self,
        directory: Path,
        settings: TrackingConfig,
        *,
        run_id: str,
        configuration: Mapping[str, Any],
        first_step: int,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / METRICS_FILE
        _drop_after(self._path, first_step)
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115
        self._wandb = _start_wandb(directory, settings, run_id, configuration)

    def train(self, step: int, values: Mapping[str, float]) -> None:
        """Measurements of a training step."""
        self._write({"kind": "train", "step": step, **values})
        self._log(step, {f"train/{name}": value for name, value in values.items()})

    def trust_ratios(self, step: int, ratios: Mapping[str, float]) -> None:
        """LAMB's trust ratio of every tensor, as one histogram and its extremes."""
        if self._wandb is not None and ratios:
            import wandb

            histogram = wandb.Histogram(list(ratios.values()))
            self._log(step, {"optimizer/trust_ratio": histogram})

    def validation(self, step: int, name: str, values: Mapping[str, float]) -> None:
        """Measurements on a validation set."""
        self._write({"kind": "validation", "step": step, "set": name, **values})
        self._log(step, {f"validation/{name}/{key}": value for key, value in values.items()})

    def event(self, step: int, what: str, **details: Any) -> None:
        """Something that happened: start, resume, a phase, a checkpoint, a change."""
        self._write({"kind": "event", "step": step, "event": what, **details})

    def rewind(self, step: int) -> None:
        """Drop the records after a step that the run was set back to; W&B keeps what it showed."""
        self._file.close()
        _drop_after(self._path, step)
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115

    def artifact(self, name: str, kind: str, path: Path) -> None:
        """A small file that tells where the run's data came from (a stage's manifest)."""
        if self._wandb is not None:
            import wandb

            artifact = wandb.Artifact(name, type=kind)
            artifact.add_file(str(path))
            self._wandb.log_artifact(artifact)

    def close(self) -> None:
        """The end of the process's part of the run."""
        self._file.close()
        if self._wandb is not None:
            self._wandb.finish()

    def _write(self, record: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._file.flush()

    def _log(self, step: int, values: Mapping[str, Any]) -> None:
        if self._wandb is not None:
            self._wandb.log(dict(values), step=step)


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """All whole records of a run; a last line cut short by a kill is left out."""
    path = directory / METRICS_FILE
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def versions() -> dict[str, str]:
    """Of the packages that bear on the numbers, as far as they are installed."""
    packages = ("lexmill", "torch", "deepspeed", "transformers", "tokenizers", "pyarrow")
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, Any]:
    """Versions and machine, as far as they bear on the numbers."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "versions": versions(),
        "revision": _revision(),
        "command": shlex.join(sys.argv[1:]),
    }


def _revision() -> str | None:
    """The git revision of the source, where it is a checkout."""
    source = Path(__file__).parent
    command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _drop_after(path: Path, step: int) -> None:
    if path.exists():
        kept = [record for record in read_metrics(path.parent) if record["step"] <= step]
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in kept]
        write_text(path, "".join(lines))


def _start_wandb(
    directory: Path, settings: TrackingConfig, run_id: str, configuration: Mapping[str, Any]
) -> Any:
    if settings.mode == "disabled" or os.environ.get("WANDB_MODE") == "disabled":
        return None
    try:
        import wandb
    except ImportError:
        print("wandb is not installed; metrics go to metrics.jsonl only", file=sys.stderr)
        return None
    has_key = bool(os.environ.get("WANDB_API_KEY")) or _netrc_has_key()
    mode = settings.mode if settings.mode != "auto" else ("online" if has_key else "offline")
    if os.environ.get("WANDB_MODE") == "offline":
        mode = "offline"
    return wandb.init(
        project=settings.project,
        name=settings.name,
        id=run_id,
        resume="allow",
        mode=mode,
        dir=str(directory),
        config=dict(configuration),
        settings=wandb.Settings(silent=True, console="off"),
    )


def _netrc_has_key() -> bool:
    try:
        text = (Path.home() / ".netrc").read_text()
    except (OSError, RuntimeError):
        return False
    return "api.wandb.ai" in text
