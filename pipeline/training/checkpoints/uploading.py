"""Copying checkpoints to an object store while training; what fails there never stops a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.training.agreement import Agreed, exchange
from pipeline.training.checkpoints.checkpoint import STATE_VERSION, Checkpoints, State, read_state
from pipeline.training.checkpoints.integrity import FileRecord
from pipeline.training.checkpoints.remote import RemoteCheckpoints
from pipeline.training.hosts import Host
from pipeline.training.skips import Range, Skips


class UploadError(Exception):
    """An upload that did not succeed, as all ranks agree."""


class Uploader:
    """Uploads the checkpoints of one training: each host the files that none before it has.

    After a failure the checkpoint stands on the disk as ever, and the next save uploads it first,
    if it is still kept then.
    """

    def __init__(
        self,
        remote: RemoteCheckpoints,
        checkpoints: Checkpoints,
        host: Host,
        *,
        keep: int,
        milestone_every: int | None,
    ) -> None:
        self._remote = remote
        self._checkpoints = checkpoints
        self._host = host
        self._keep = keep
        self._milestone_every = milestone_every

    def upload(self, step: int, skips: Sequence[Range]) -> None:
        """Upload a checkpoint just saved, after those before it that are not there yet. Collective.

        Args:
            skips: ranges of steps that set-backs made the run pass over: what is still there of
                them counts no more.

        Raises:
            UploadError: on all ranks, what went wrong.
        """
        first = self._host.rank == 0
        for number in self._attempt(lambda: self._pending(step, skips) if first else None)[0]:
            self._upload_one(number)
        policy = self._keep, self._milestone_every
        self._attempt(lambda: self._remote.prune(*policy) if first else None)

    def forget_after(self, step: int) -> None:
        """Let no later checkpoint count: the run was set back to ``step``. Collective.

        Raises:
            UploadError: on all ranks, what went wrong.
        """
        first = self._host.rank == 0
        self._attempt(lambda: self._remote.forget(lambda at: at > step) if first else None)

    def _pending(self, step: int, skips: Sequence[Range]) -> list[int]:
        passed_over = Skips((), skips)
        self._remote.forget(lambda at: at >= step or passed_over.abandoned(at))
        there = set(self._remote.steps())
        return [s for s in self._checkpoints.steps() if s <= step and s not in there]

    def _upload_one(self, step: int) -> None:
        path, host = self._checkpoints.path(step), self._host
        states: list[State | None] = self._attempt(lambda: read_state(path) if host.leads else None)
        files: dict[str, FileRecord] = {}
        parts: list[int] = []
        own: list[str] = []
        for rank, state in enumerate(states):
            if state is None:
                continue
            if state.version < STATE_VERSION:
                return  # it knows no digests of its files
            new = {name: record for name, record in state.files.items() if name not in files}
            own = list(new) if rank == host.rank else own
            files |= new
            parts += state.parts
        self._attempt(lambda: self._remote.upload(step, path, own))
        record = states[0]
        assert record is not None
        whole = dataclasses.replace(record, files=files, parts=tuple(sorted(parts)))
        self._attempt(lambda: self._remote.complete(step, whole) if host.rank == 0 else None)

    def _attempt(self, action: Callable[[], Any]) -> list[Any]:
        """Do something on this rank; what came of it on all ranks."""
        result = None
        try:
            with self._host.together():
                result = action()
        except Agreed as problems:
            raise UploadError(str(problems)) from None
        return exchange(result)
