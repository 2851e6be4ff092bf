"""What a run says of itself: ``metrics.jsonl`` always, Weights & Biases where it is wanted.

One line a record: ``{"kind": "train", "step": 10, "loss": ...}``. The kinds are ``train``,
``tensors`` (by measure and name: ``{"trust_ratio": {"encoder.0.weight": 0.8, ...}, ...}``, where
the optimizer is LAMB), ``validation`` (one line a set) and ``event``. A resumed run continues the
same file and the same W&B run; records after the step it resumed from are dropped first, so no
step stands there twice.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline.sections import TrackingConfig
from preprocessing.redaction import redact, redact_values
from preprocessing.storage import InputError, atomic_write

METRICS_FILE = "metrics.jsonl"


class Tracker:
    """Records of one training; only rank 0 has one.

    Raises:
        InputError: Weights & Biases cannot be started; nothing has been changed then.
    """

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
        self._wandb = _start_wandb(directory, settings, run_id, configuration)
        self._path = directory / METRICS_FILE
        _drop_after(self._path, first_step)
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115

    def train(self, step: int, values: Mapping[str, float]) -> None:
        """Measurements of a training step."""
        self._write({"kind": "train", "step": step, **values})
        self._log(step, {f"train/{name}": value for name, value in values.items()})

    def tensors(
        self,
        step: int,
        *,
        trust_ratio: Mapping[str, float],
        weight_norm: Mapping[str, float],
        update_norm: Mapping[str, float],
    ) -> None:
        """Measures of single tensors by name, as far as the step has any; histograms in W&B."""
        measures = {
            "trust_ratio": trust_ratio,
            "weight_norm": weight_norm,
            "update_norm": update_norm,
        }
        found = {measure: dict(values) for measure, values in measures.items() if values}
        if not found:
            return
        self._write({"kind": "tensors", "step": step, **found})
        if self._wandb is not None:
            import wandb

            histograms = {
                f"optimizer/{measure}": wandb.Histogram(list(values.values()))
                for measure, values in found.items()
            }
            self._log(step, histograms)

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
            with artifact.new_file(path.name) as file:
                file.write(path.read_text(encoding="utf-8"))  # it may lie far away
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


def read_metrics(
    directory: Path, kinds: Collection[str] = ("train", "validation", "event")
) -> list[dict[str, Any]]:
    """All whole records of a run; a last line cut short by a kill is left out.

    Args:
        kinds: the records wanted. Those of single tensors outweigh all others, hundreds of times
            where a model is large, so they come only if they are asked for.
    """
    records = (record for _, record in _whole_records(directory / METRICS_FILE))
    return [record for record in records if record["kind"] in kinds]


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
        "command": redact(shlex.join(sys.argv[1:])),
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


def _whole_records(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Lines without their ends, and what they say, up to one that a kill cut short."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                return
            yield line.rstrip(b"\n"), record


def _drop_after(path: Path, step: int) -> None:
    if path.exists():
        with atomic_write(path) as file:
            for line, record in _whole_records(path):
                if record["step"] <= step:
                    file.write(line + b"\n")


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
    try:
        return wandb.init(
            project=settings.project,
            name=settings.name,
            id=run_id,
            resume="allow",
            mode=mode,
            dir=str(directory),
            config=redact_values(dict(configuration)),
            settings=wandb.Settings(silent=True, console="off"),
        )
    except wandb.errors.Error as error:
        raise InputError(
            f"tracking: Weights & Biases cannot be reached or refuses: {error}; "
            "tracking.mode=offline keeps the run on the disk"
        ) from error


def _netrc_has_key() -> bool:
    try:
        text = (Path.home() / ".netrc").read_text()
    except (OSError, RuntimeError):
        return False
    return "api.wandb.ai" in text
