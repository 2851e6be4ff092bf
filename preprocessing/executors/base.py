"""What every executor does alike: so many tasks at a time, and another try for the unlucky ones.

A *crew* is whoever does tasks, some at a time; :func:`drive` hands them out, and hands one out
again where its worker was lost or the network failed. An error of the data ends everything at
once. The results never depend on the crew.
"""

from __future__ import annotations

import ctypes
import heapq
import pickle
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from preprocessing.errors import is_transient
from preprocessing.redaction import redact

Task = TypeVar("Task")
Result = TypeVar("Result")

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before the second attempt at a task, doubled for each further one up to the longest."""


def use_system_memory() -> None:
    """Let Arrow allocate by ``malloc`` in this process, as whatever runs tasks does.

    Its own allocators keep what is freed, so that a worker's memory grows with what it has done.
    """
    pa.set_memory_pool(pa.system_memory_pool())


def return_free_memory() -> None:
    """Give what ``malloc`` holds and nobody uses back to the system, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class Executor(Protocol):
    """Runs independent tasks. ``function`` and ``tasks`` are picklable."""

    def run(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[int, Result]]:
        """Yield ``(index, result)`` as tasks finish.

        Raises:
            InputError: the data is no good, or a task's worker was lost once too often.
        """

    def close(self) -> None:
        """End what was started for it."""


@dataclass(frozen=True)
class Success:
    """What a task gave."""

    value: Any


@dataclass(frozen=True)
class Failure:
    """What a task, or losing its worker, came to."""

    error: Exception


def attempt(function: Callable[[Any], Any], task: Any) -> Success | Failure:
    """Run a task in a worker; its error comes back with the place it happened at."""
    try:
        return Success(function(task))
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # whatever a library's exception raises when it is taken apart
            error = RuntimeError(f"{type(error).__name__}: {redact(str(error))}")
            error.add_note("in a worker")
        else:
            error.add_note("in a worker:\n" + redact(traceback.format_exc()).rstrip())
        return Failure(error)
    finally:
        return_free_memory()


class Crew(Protocol):
    """Workers that are given tasks one by one."""

    def start(self, index: int, task: Any) -> None:
        """Give a task to a free worker."""

    def wait(self, seconds: float | None) -> list[tuple[int, Success | Failure]]:
        """What was finished or lost since; returns at the latest after so many seconds."""


class Retries:
    """Counts the failures of each task."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._failures: Counter[int] = Counter()

    def pause(self, index: int, error: Exception) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            Exception: ``error`` itself, where another attempt makes no sense.
        """
        self._failures[index] += 1
        if self._failures[index] > self._most or not is_transient(error):
            raise error
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (self._failures[index] - 1))
        print(
            f"task {index}: {redact(str(error))}; "
            f"try {self._failures[index] + 1} of {self._most + 1} in {pause:g} s",
            file=sys.stderr,
            flush=True,
        )
        return pause


def drive(
    crew: Crew, tasks: Sequence[Any], at_once: int, retries: int
) -> Iterator[tuple[int, Any]]:
    """Keep a crew busy until every task is done; yield ``(index, result)`` as they finish."""
    waiting = deque(range(len(tasks)))
    postponed: list[tuple[float, int]] = []
    counts = Retries(retries)
    busy = 0
    while waiting or postponed or busy:
        now = time.monotonic()
        while postponed and postponed[0][0] <= now:
            waiting.append(heapq.heappop(postponed)[1])
        while waiting and busy < at_once:
            index = waiting.popleft()
            crew.start(index, tasks[index])
            busy += 1
        until_next = max(0.0, postponed[0][0] - now) if postponed else None
        if not busy:
            time.sleep(until_next or 0.0)
            continue
        for index, outcome in crew.wait(until_next):
            busy -= 1
            if isinstance(outcome, Success):
                yield index, outcome.value
            else:
                pause = counts.pause(index, outcome.error)
                heapq.heappush(postponed, (time.monotonic() + pause, index))
