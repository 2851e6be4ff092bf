"""Tasks in this process or in worker processes of this machine.

Workers are spawned (nothing is inherited by accident), and they end when the process that started
them is gone, however it went. A worker that dies takes only its own task with it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from preprocessing.errors import WorkerLostError
from preprocessing.executors.base import (
    Failure,
    Result,
    Retries,
    Success,
    Task,
    attempt,
    drive,
    return_free_memory,
    use_system_memory,
)
from preprocessing.redaction import redact

_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class LocalExecutor:
    """With one worker, tasks run in order and in this process.

    Attributes:
        workers: processes at a time.
        retries: how often a task is tried again after a passing fault.
    """

    workers: int = 1
    retries: int = 0

    def run(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[int, Result]]:
        """See :class:`preprocessing.executors.base.Executor`."""
        if self.workers <= 1 or len(tasks) <= 1:
            yield from self._run_here(function, tasks)
            return
        crew = _Processes(function)
        try:
            yield from drive(crew, tasks, min(self.workers, len(tasks)), self.retries)
        except Exception as error:
            if crew.is_busy:  # the others may take a while
                sentence = f"{redact(str(error))}\nending when the tasks at work are done"
                print(sentence, file=sys.stderr, flush=True)
            raise
        finally:
            crew.end()

    def _run_here(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[int, Result]]:
        counts = Retries(self.retries)
        for index, task in enumerate(tasks):
            while True:
                try:
                    result = function(task)
                except Exception as error:
                    time.sleep(counts.pause(index, error))
                else:
                    break
                finally:
                    return_free_memory()
            yield index, result

    def close(self) -> None:
        """Workers end with their run."""


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    index: int | None = None


class _Processes:
    """As many processes as there were tasks at a time."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function
        self._workers: list[_Worker] = []

    def start(self, index: int, task: Any) -> None:
        """Give a task to an idle process, or to a new one."""
        worker = next((worker for worker in self._workers if worker.index is None), None)
        if worker is None:
            worker = _start_worker()
            self._workers.append(worker)
        worker.index = index
        # A worker that has just died is noticed by ``wait``.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            worker.connection.send((self._function, task))

    def wait(self, seconds: float | None) -> list[tuple[int, Success | Failure]]:
        """What was finished, and what was lost with its process."""
        busy = {worker.connection: worker for worker in self._workers if worker.index is not None}
        outcomes: list[tuple[int, Success | Failure]] = []
        for connection in wait(list(busy), seconds):
            worker = busy[connection]  # type: ignore[index]
            index, worker.index = worker.index, None
            assert index is not None
            try:
                outcomes.append((index, worker.connection.recv()))
            except (EOFError, ConnectionResetError):
                outcomes.append((index, Failure(self._lost(worker))))
        return outcomes

    def _lost(self, worker: _Worker) -> WorkerLostError:
        self._workers.remove(worker)
        worker.connection.close()
        worker.process.join()
        code = worker.process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return WorkerLostError(
            f"a worker process died ({how}: killed, or out of memory); start again: what is "
            "finished is kept. Fewer workers (corpus.workers) need less memory"
        )

    @property
    def is_busy(self) -> bool:
        """Whether a task is at work."""
        return any(worker.index is not None for worker in self._workers)

    def end(self) -> None:
        """Let every process finish its task, and end."""
        for worker in self._workers:
            worker.connection.close()
        for worker in self._workers:
            worker.process.join()


def _start_worker() -> _Worker:
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_serve, args=(theirs, os.getpid()))
    resource_tracker.ensure_running()  # which lets interrupts through when it starts
    with _without_interrupts():
        process.start()
    theirs.close()
    return _Worker(process, ours)


def _serve(connection: Connection, parent: int) -> None:
    """Do one task after the other until nobody is there to give any."""
    use_system_memory()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            function, task = connection.recv()
            connection.send(attempt(function, task))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes started in here never see Ctrl-C, not even while they import; we see it after."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
