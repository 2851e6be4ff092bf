"""Progress on standard error: a bar for a person, two plain lines for a log file."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress


class Progress:
    """How many of a stage's tasks are done."""

    def __init__(self, title: str, total: int, *, quiet: bool = False) -> None:
        self._title, self._total, self._done = title, total, 0
        self._bar = RichProgress(
            TextColumn("{task.description:>12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=quiet or not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(title, total=total)
        self._plain = not quiet and not sys.stderr.isatty()

    def __enter__(self) -> Progress:
        self._bar.start()
        if self._plain:
            print(f"{self._title}: {self._total} tasks", file=sys.stderr, flush=True)
        return self

    def advance(self, count: int) -> None:
        """Some more tasks are done."""
        self._done += count
        self._bar.advance(self._task, count)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if self._plain:
            print(f"{self._title}: {self._done} of {self._total}", file=sys.stderr, flush=True)
