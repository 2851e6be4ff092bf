from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from launchers import local
from launchers.local import Command, deepspeed_command, default_ranks, free_port

SCRIPT = Path("pipeline/train.py")


def test_command_on_cpu_names_the_accelerator() -> None:
    overrides = ["seed=2", "output.directory=out"]
    command = deepspeed_command(SCRIPT, "my.yaml", overrides, 3, gpus=False)

    launcher, *words = command.words
    assert Path(launcher).name == "deepspeed"
    assert words[:4] == ["--quiet", "--num_accelerators", "3", "--master_port"]
    assert 1024 <= int(words[4]) < 65536
    assert words[5:] == ["pipeline/train.py", "my.yaml", "seed=2", "output.directory=out"]
    assert command.environment == (("DS_ACCELERATOR", "cpu"),)
    assert str(command).startswith("DS_ACCELERATOR=cpu ")


def test_command_on_gpus_leaves_the_environment_alone() -> None:
    command = deepspeed_command(SCRIPT, "my.yaml", [], 8, gpus=True)

    assert command.environment == ()
    assert str(command) == " ".join(command.words)


def test_command_in_text_is_the_command_a_shell_runs() -> None:
    words = ("echo", "", "two words", "it's", "$HOME", "*", "phases=[{steps: 3}]", "a;b", "tab\t")
    command = Command(
        (sys.executable, "-c", "import os, sys; print(sys.argv, os.environ['X'])", *words),
        (("X", "a b"),),
    )

    shown = subprocess.run(["sh", "-c", str(command)], capture_output=True, text=True, check=True)
    assert shown.stdout == f"{['-c', *words]} a b\n"
    assert shlex.split(str(command))[1:] == [*command.words]


def test_every_command_gets_a_port_of_its_own() -> None:
    commands = [deepspeed_command(SCRIPT, "my.yaml", [], 2, gpus=False) for _ in range(8)]

    assert len({command.words[5] for command in commands}) > 1


def test_launcher_beside_this_python_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    elsewhere = tmp_path / "elsewhere" / "deepspeed"
    monkeypatch.setattr(shutil, "which", lambda name: str(elsewhere))
    assert deepspeed_command(SCRIPT, "my.yaml", [], 1, gpus=False).words[0] == str(elsewhere)

    (tmp_path / "deepspeed").touch()
    command = deepspeed_command(SCRIPT, "my.yaml", [], 1, gpus=False)
    assert command.words[0] == str(tmp_path / "deepspeed")


def test_missing_launcher_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(FileNotFoundError) as caught:
        deepspeed_command(SCRIPT, "my.yaml", [], 1, gpus=False)
    assert str(caught.value) == "deepspeed: not installed (pip install 'lexmill[train]')"


@pytest.mark.parametrize(
    ("gpus", "cores", "ranks"), [(8, 64, 8), (1, 64, 1), (0, 64, 2), (0, 2, 2), (0, 1, 1)]
)
def test_default_ranks(monkeypatch: pytest.MonkeyPatch, gpus: int, cores: int, ranks: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))

    assert default_ranks(gpus) == ranks


def test_free_port_can_be_listened_on() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", local.free_port()))
        listener.listen()
        assert free_port() != listener.getsockname()[1]
