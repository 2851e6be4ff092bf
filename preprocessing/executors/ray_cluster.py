"""Tasks in a Ray cluster: one that exists, or one of this machine that ends with this process.

Every machine of a cluster needs the same lexmill, and sees the corpus under the same path or URL.
Ray's own retries are off: a task whose node is lost comes back to us, and is handed out again.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import Any

from preprocessing.errors import InputError, WorkerLostError
from preprocessing.executors.base import (
    Failure,
    Result,
    Success,
    Task,
    attempt,
    drive,
    use_system_memory,
)
from preprocessing.redaction import redact

_CONNECT_SECONDS = 10.0
_FREE_SECONDS = 10.0
_LOCAL_STORE_BYTES = 128 * 2**20
"""Results are a few lines each: what tasks make goes to the corpus directory."""


class RayExecutor:
    """Starts (or joins) the cluster at the first run; later runs use the same.

    Args:
        address: of an existing cluster, as ``ray.init`` takes it; None starts one here.
        workers: tasks at a time; of a cluster started here, also its processors.
        retries: how often a task is tried again after a passing fault.
    """

    def __init__(self, address: str | None, workers: int, retries: int) -> None:
        self._address, self._workers, self._retries = address, workers, retries
        self._started = False

    def run(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[int, Result]]:
        """See :class:`preprocessing.executors.base.Executor`."""
        if not tasks:
            return
        self._start()
        crew = _Cluster(function)
        try:
            yield from drive(crew, tasks, self._workers, self._retries)
        finally:
            crew.end()

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        if self._started:
            import ray

            ray.shutdown()
            self._started = False

    def _start(self) -> None:
        try:
            import ray
        except ImportError:
            raise InputError(
                "corpus.executor.kind is ray, and Ray is not installed: pip install lexmill[ray]"
            ) from None
        if ray.is_initialized():
            return
        if self._address is not None:
            _check_address(self._address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        try:
            if self._address is None:
                ray.init(
                    address="local",
                    num_cpus=self._workers,
                    num_gpus=0,
                    object_store_memory=_LOCAL_STORE_BYTES,
                    include_dashboard=False,
                    **quiet,
                )
            else:
                ray.init(address=self._address, **quiet)
                _await_processor(ray)
        # Ray ends the whole process where a cluster goes away while it is being joined.
        except (ImportError, OSError, RuntimeError, ValueError, SystemExit) as error:
            raise _no_cluster(self._address, error) from error
        self._started = True


def _check_address(address: str) -> None:
    """Nobody waits five minutes, as Ray does, for a machine that is not there."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return  # ``auto``, or a name of Ray's own
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise _no_cluster(address, error) from None


def _await_processor(ray: Any) -> None:
    """Say so where tasks will have to wait; a cluster that grows on demand needs them to."""
    deadline = time.monotonic() + _FREE_SECONDS
    while ray.available_resources().get("CPU", 0.0) < 1.0:
        if time.monotonic() > deadline:
            print("no node of the Ray cluster has a free processor: waiting", file=sys.stderr)
            return
        time.sleep(0.5)


def _no_cluster(address: str | None, error: BaseException) -> InputError:
    where = "here" if address is None else f"at {redact(address)}"
    return InputError(f"no Ray cluster {where}: {redact(str(error))}; see corpus.executor.address")


class _Cluster:
    """Tasks in flight, by the references that Ray gave for them."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        import ray

        self._ray = ray
        self._function = ray.put(function)
        self._version = metadata.version("lexmill")
        self._submit = ray.remote(num_cpus=1, max_retries=0)(_attempt_there)
        self._indices: dict[Any, int] = {}

    def start(self, index: int, task: Any) -> None:
        """Send a task to wherever there is room."""
        self._indices[self._submit.remote(self._function, self._version, task)] = index

    def wait(self, seconds: float | None) -> list[tuple[int, Success | Failure]]:
        """What was finished, and what was lost with its worker or its node."""
        from ray.exceptions import RayError, RayTaskError

        ready, _ = self._ray.wait(list(self._indices), num_returns=1, timeout=seconds)
        outcomes: list[tuple[int, Success | Failure]] = []
        for reference in ready:
            index = self._indices.pop(reference)
            try:
                outcomes.append((index, self._ray.get(reference)))
            except RayTaskError as error:  # before our own code: the package is not there
                sentence = f"a Ray worker cannot run lexmill: {redact(str(error.cause))}"
                outcomes.append((index, Failure(InputError(sentence))))
            except RayError as error:
                outcomes.append((index, Failure(WorkerLostError(_sentence(error)))))
        return outcomes

    def end(self) -> None:
        """Call back what nobody waits for any more."""
        for reference in self._indices:
            self._ray.cancel(reference, force=True)
        self._indices.clear()


def _sentence(error: Exception) -> str:
    lines = redact(str(error)).strip().splitlines() or [""]
    return (
        f"a Ray worker or its node was lost ({type(error).__name__}: {lines[0][:200]}); start "
        "again: what is finished is kept"
    )


def _attempt_there(function: Callable[[Any], Any], version: str, task: Any) -> Success | Failure:
    here = metadata.version("lexmill")
    if here != version:
        return Failure(
            InputError(f"a Ray node has lexmill {here}, not {version} as here; install the same")
        )
    use_system_memory()
    return attempt(function, task)
