"""Run independent tasks, here or in worker processes. The results never depend on which.

A task is a picklable function call. Workers are spawned (nothing is inherited by accident), and
they end when the process that started them is gone, however it went.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from preprocessing.storage import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int
) -> Iterator[tuple[int, Result]]:
    """Yield ``(index, result)`` as tasks finish; with one worker, in order and in this process.

    Raises:
        InputError: a worker died (killed from outside, or out of memory).
    """
    if workers <= 1 or len(tasks) <= 1:
        for index, task in enumerate(tasks):
            yield index, function(task)
        return
    pool = concurrent.futures.ProcessPoolExecutor(
        max_workers=min(workers, len(tasks)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_end_with_parent,
        initargs=(os.getpid(),),
    )
    try:
        with _without_interrupts():
            indices = {pool.submit(function, task): index for index, task in enumerate(tasks)}
        for future in concurrent.futures.as_completed(indices):
            yield indices[future], future.result()
    except BrokenProcessPool:
        raise InputError(
            "a worker process died (killed, or out of memory); start again: what is finished is "
            "kept. Fewer workers (corpus.workers) need less memory"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes started in here never see Ctrl-C, not even while they import; we see it after."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent(parent: int) -> None:
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
