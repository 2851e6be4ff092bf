"""One machine: the command that starts training on its GPUs, or on a few CPU processes."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Command:
    """An ordinary command: its words, and what it needs in the environment."""

    words: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """As a person would type it into a shell."""
        settings = [f"{name}={shlex.quote(value)}" for name, value in self.environment]
        return " ".join([*settings, shlex.join(self.words)])


def deepspeed_command(
    script: Path, config: str, overrides: Sequence[str], ranks: int, *, gpus: bool
) -> Command:
    """``deepspeed`` on this machine with so many ranks.

    Raises:
        FileNotFoundError: there is no ``deepspeed`` command.
    """
    beside = Path(sys.executable).with_name("deepspeed")
    launcher = str(beside) if beside.exists() else shutil.which("deepspeed")
    if launcher is None:
        raise FileNotFoundError("deepspeed: not installed (pip install 'lexmill[train]')")
    words = [
        launcher,
        "--quiet",
        "--num_accelerators",
        str(ranks),
        "--master_port",
        str(free_port()),
    ]
    environment = () if gpus else (("DS_ACCELERATOR", "cpu"),)
    return Command((*words, str(script), config, *overrides), environment)


def default_ranks(gpus: int) -> int:
    """A rank for every GPU; without any, one for each of at most two cores."""
    return gpus or min(2, len(os.sched_getaffinity(0)))


def free_port() -> int:
    """A port on this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
