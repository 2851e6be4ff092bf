"""What workers are given to do in these tests."""

import errno
import os
import signal
import time
from pathlib import Path

from preprocessing.storage import InputError


def double(value: int) -> int:
    return 2 * value


def fail_at_three(value: int) -> int:
    if value == 3:
        raise InputError("three is no good")
    return value


def break_at_three(value: int) -> int:
    if value == 3:
        raise OSError(errno.EIO, "Input/output error", "somewhere")
    return value


class UnfoldableError(Exception):
    """What some libraries raise: it cannot be made again from its own arguments."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def raise_unfoldable(value: int) -> int:
    raise UnfoldableError("tok", "en=abcdefgh")


def die_at_three(value: int) -> int:
    if value == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def die_once(job: tuple[Path, int]) -> int:
    """Task 3 kills its worker the first time; every task notes that it was begun."""
    folder, value = job
    first = not (folder / f"began-{value}").exists()
    with open(folder / f"began-{value}", "a") as file:
        file.write("x")
    if value == 3 and first:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def fail_twice(job: tuple[Path, int]) -> int:
    """The network is away the first two times that task 1 asks for it."""
    folder, value = job
    with open(folder / f"began-{value}", "a") as file:
        file.write("x")
    if value == 1 and len((folder / "began-1").read_text()) <= 2:
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    return value


def slow(job: tuple[Path, int]) -> int:
    """Long enough to be killed in the middle; notes on which node it was begun."""
    import ray

    folder, value = job
    node = ray.get_runtime_context().get_node_id()
    with open(folder / f"began-{value}", "a") as file:
        file.write("x")
    (folder / f"node-{node}").touch()
    time.sleep(0.4)
    return value
