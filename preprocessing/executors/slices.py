"""A share of a stage's tasks, for any scheduler that deals numbers: ``--slice 3/16``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from preprocessing.errors import InputError


@dataclass(frozen=True)
class TaskSlice:
    """The tasks whose index leaves ``index`` when divided by ``count``.

    >>> [task for task in range(7) if TaskSlice(1, 3).holds(task)]
    [1, 4]
    """

    index: int
    count: int

    @staticmethod
    def parse(text: str) -> TaskSlice:
        """Read ``i/n``; i counts from 0.

        Raises:
            InputError: anything else.
        """
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if match is None or not int(match[1]) < int(match[2]):
            raise InputError(
                f"--slice {text}: give i/n with i from 0 to n-1, as 0/16 to 15/16 "
                "(--slice $SLURM_ARRAY_TASK_ID/16 with --array=0-15)"
            )
        return TaskSlice(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def holds(self, task: int) -> bool:
        """Whether a task belongs to it."""
        return task % self.count == self.index


def describe_missing(missing: Sequence[int], count: int | None) -> str:
    """Which slices (of ``count``, where it is known) and tasks have not been done."""
    tasks = _shortened([str(task) for task in missing])
    if count is None:
        return f"tasks {tasks}"
    slices = _shortened([f"{index}/{count}" for index in sorted({i % count for i in missing})])
    return f"slices {slices} (tasks {tasks})"


def _shortened(names: Sequence[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
