"""Saving as all ranks do it together: each writes its part, and one a host makes it whole.

Files are forced to the disk and digested by all ranks, each its share. One rank alone would take as
many times longer as there are ranks: a core digests 0.6 GB a second (measured), and a BERT-large's
states and weights are 5.4 GB.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torch import Tensor

from pipeline.data import Data
from pipeline.phases import Timeline
from pipeline.settings import Run
from pipeline.training.agreement import Agreed, TrainingStopped, exchange
from pipeline.training.checkpoints.background import Held, Pending, Work, at_once
from pipeline.training.checkpoints.checkpoint import WEIGHTS_FILE, Checkpoints, State
from pipeline.training.checkpoints.integrity import FileRecord, list_files, seal
from pipeline.training.checkpoints.remote import RemoteCheckpoints
from pipeline.training.checkpoints.uploading import Uploader, UploadError
from pipeline.training.engine import Engine
from pipeline.training.hosts import Host
from pipeline.training.skips import Range
from pipeline.training.tracking import Tracker


class Saver:
    """Writes the checkpoints of one training.

    Args:
        remote: where they are uploaded to, if anywhere.
        tracker: is told of uploads; on rank 0.
    """

    def __init__(
        self,
        run: Run,
        engine: Engine,
        data: Data,
        checkpoints: Checkpoints,
        run_id: str,
        *,
        host: Host,
        remote: RemoteCheckpoints | None,
        tracker: Tracker | None,
    ) -> None:
        self._run = run
        self._engine = engine
        self._data = data
        self._checkpoints = checkpoints
        self._run_id = run_id
        self._host = host
        self._tracker = tracker
        self._timeline = Timeline(run.phases, run.schedule)
        self._pending: Pending | None = None
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._uploader: Uploader | None = None
        if remote is not None:
            self._uploader = Uploader(
                remote,
                checkpoints,
                host,
                keep=run.train.keep_checkpoints,
                milestone_every=run.train.milestone_every,
            )

    def save(
        self,
        step: int,
        guards: Mapping[str, Any] | None = None,
        skips: Sequence[Range] = (),
        memory: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write a checkpoint, or begin to where saves are asynchronous; all ranks take part.

        Args:
            guards: what they go on from.
            skips: ranges of steps that set-backs made it pass over.
            memory: of its streams.

        Raises:
            Agreed: one of the ranks could not write this one, or the one before.
        """
        self.finish()
        phases = self._phases(step, copy.deepcopy(guards or {}), tuple(skips), memory or {})
        if self._run.train.asynchronous_saves:
            self._pending = Pending(phases, next(phases), self._thread)
            return
        for work in phases:
            with self._writing():
                work()

    def advance(self) -> None:
        """Go on with a pending save, if all ranks have done their work. Collective.

        Raises:
            Agreed: one of the ranks could not write.
        """
        if self._pending is not None and all(exchange(self._pending.done)):
            self._go_on(self._pending)

    def finish(self) -> None:
        """Wait for a pending save, and make its checkpoint whole. Collective.

        Raises:
            Agreed: one of the ranks could not write.
        """
        while self._pending is not None:
            self._go_on(self._pending)

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """Finish what is pending at the end, also of a training that fails on all ranks alike.

        Where one rank fails alone, the others cannot be asked: then only its thread is waited for.
        """
        try:
            yield
        except BaseException as error:
            alike = isinstance(error, TrainingStopped | Agreed) or self._host.world_size == 1
            self._close_failed(alike)
            raise
        self.finish()

    def _close_failed(self, alike: bool) -> None:
        if not alike:
            self._thread.shutdown()
            return
        try:
            self.finish()
        except Agreed as problem:  # the training's own failure is the one to be raised
            if self._host.rank == 0:
                print(problem, file=sys.stderr, flush=True)

    def _go_on(self, pending: Pending) -> None:
        self._pending = None  # what fails is not tried again
        with self._writing():
            pending.wait()
        self._pending = pending.next()

    def _begin(self, step: int, memory: Mapping[str, Tensor]) -> Work:
        """Write what the engine has, or copy it; returned is what then is left to write."""
        engine, checkpoints, host, held = self._engine, self._checkpoints, self._host, Held()
        put = held.put if self._run.train.asynchronous_saves else at_once
        with self._writing():
            if host.leads:
                checkpoints.begin(step)
        with self._writing():
            engine.save(checkpoints.writing_path(step) / engine.kind, put)
        weights = engine.weights()

        def write() -> None:
            held.write()
            if host.leads:
                tokenizer = self._run.preparation.tokenizer_directory
                checkpoints.add(step, self._run, weights, tokenizer, memory)

        return write

    def _phases(
        self,
        step: int,
        guards: Mapping[str, Any],
        skips: Sequence[Range],
        memory: Mapping[str, Tensor],
    ) -> Iterator[Work]:
        """All of a save. What is done together is done here; yielded is what each rank does alone.

        From the first time that it yields, steps change nothing that it needs.
        """
        checkpoints, host = self._checkpoints, self._host
        writing = checkpoints.writing_path(step)
        yield self._begin(step, memory)
        listed = exchange(list_files(writing) if host.leads else None)[host.ranks[0]]
        sealed: dict[str, FileRecord] = {}
        yield lambda: sealed.update(seal(writing, host.share(listed)))
        files = exchange(sealed)
        digest = next(some[WEIGHTS_FILE].digest for some in files if WEIGHTS_FILE in some)
        own = {name: record for rank in host.ranks for name, record in files[rank].items()}
        with self._writing():
            if host.leads:
                state = self._state(step, digest, own)
                state = dataclasses.replace(state, guards=guards, skips=tuple(skips))
                checkpoints.complete(step, state)
        with host.together():  # not before every host has the new one
            if host.leads:
                settings = self._run.train
                checkpoints.prune(settings.keep_checkpoints, settings.milestone_every)
        if self._tracker is not None:
            self._tracker.event(step, "checkpoint", path=checkpoints.path(step).name)
        self._upload(step, skips)

    def forget_after(self, step: int) -> None:
        """Let the object store know that the run was set back to ``step``. Collective."""
        if self._uploader is None:
            return
        try:
            self._uploader.forget_after(step)
        except UploadError as error:
            self._tell_failure(
                step,
                f"THE OBJECT STORE KEEPS LATER CHECKPOINTS, which were abandoned: {error}\n"
                "The next save tries again; until then start on disks that have this checkpoint",
            )

    def _upload(self, step: int, skips: Sequence[Range]) -> None:
        if self._uploader is None:
            return
        try:
            self._uploader.upload(step, skips)
        except UploadError as error:
            self._tell_failure(
                step,
                f"THE CHECKPOINT IS NOT UPLOADED: {error}\nIt stands in "
                f"{self._checkpoints.path(step)}; the next save tries again",
            )
        else:
            if self._tracker is not None:
                self._tracker.event(step, "upload")

    def _tell_failure(self, step: int, told: str) -> None:
        if self._tracker is not None:
            self._tracker.event(step, "upload_failed", problem=told)
        if self._host.rank == 0:
            print(f"step {step}: {told}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """What all ranks write at one time; they stop together if one of them fails."""
        directory = self._checkpoints.directory

        def explain(error: Exception) -> str:
            free = shutil.disk_usage(self._run.output.directory).free / 2**20
            return (
                f"{directory}: the checkpoint could not be written, with {free:,.0f} MiB free on "
                f"the disk ({error}); make room and start again: the checkpoints before it are kept"
            )

        try:
            with self._host.together(explain):
                yield
        except Agreed:
            if self._host.leads:
                self._checkpoints.clear_unfinished()
            raise

    def _state(self, step: int, weights: str, files: dict[str, FileRecord]) -> State:
        leaves = {key: value for key, (value, _) in self._run.resume_leaves().items()}
        zero = self._run.deepspeed.zero_stage if self._engine.kind == "deepspeed" else None
        return State(
            step=step,
            phase=self._timeline.place(step).phase,
            position=self._timeline.position(step),
            seed=self._run.seed,
            engine=self._engine.kind,
            world_size=self._engine.world_size,
            zero_stage=zero,
            data=self._data.digests,
            tokenizer=self._data.tokenizer,
            leaves=leaves,
            run_id=self._run_id,
            weights=weights,
            files=files,
            parts=self._host.ranks,
        )
