"""Saving as all ranks do it together: each writes its part, and one makes the checkpoint whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from pipeline.data import Data
from pipeline.phases import Timeline
from pipeline.settings import Run
from pipeline.training.checkpoint import Checkpoints, State
from pipeline.training.engine import Engine
from preprocessing.storage import InputError


class Saver:
    """Writes the checkpoints of one training."""

    def __init__(
        self, run: Run, engine: Engine, data: Data, checkpoints: Checkpoints, run_id: str
    ) -> None:
        self._run = run
        self._engine = engine
        self._data = data
        self._checkpoints = checkpoints
        self._run_id = run_id
        self._timeline = Timeline(run.phases, run.schedule)

    def save(self, step: int) -> Path:
        """Write a checkpoint; all ranks take part, rank 0 makes it whole.

        Raises:
            InputError: on every rank, where one of them could not write.
        """
        engine, checkpoints = self._engine, self._checkpoints
        self._write_together((lambda: checkpoints.begin(step)) if engine.rank == 0 else None)
        self._write_together(lambda: engine.save(checkpoints.writing_path(step) / engine.kind))
        weights = engine.weights()
        settings, tokenizer = self._run.train, self._run.preparation.tokenizer_directory

        def complete() -> None:
            assert weights is not None
            checkpoints.complete(step, self._state(step), self._run, weights, tokenizer)
            checkpoints.prune(settings.keep_checkpoints, settings.milestone_every)

        self._write_together(complete if weights is not None else None)
        return checkpoints.path(step)

    def _write_together(self, write: Callable[[], object] | None) -> None:
        """Let this rank write, if it has something to; all ranks stop if one of them fails."""
        directory, problem = self._checkpoints.directory, None
        try:
            if write is not None:
                write()
        except (OSError, RuntimeError, InputError) as error:  # torch tells a full disk so
            free = shutil.disk_usage(self._run.output.directory).free / 2**20
            problem = (
                f"{directory}: the checkpoint could not be written, with {free:,.0f} MiB free on "
                f"the disk ({error}); make room and start again: the checkpoints before it are kept"
            )
        if problems := self._engine.agree(problem):
            if self._engine.rank == 0:
                self._checkpoints.clear_unfinished()
            raise InputError("\n".join(problems))

    def _state(self, step: int) -> State:
        place = self._timeline.place(step)
        leaves = {key: value for key, (value, _) in self._run.resume_leaves().items()}
        zero = self._run.deepspeed.zero_stage if self._engine.kind == "deepspeed" else None
        return State(
            step=step,
            phase=place.phase,
            position=place.step * self._run.phases[place.phase].batch_rows,
            seed=self._run.seed,
            engine=self._engine.kind,
            world_size=self._engine.world_size,
            zero_stage=zero,
            data=self._data.digests,
            tokenizer=self._data.tokenizer,
            leaves=leaves,
            run_id=self._run_id,
        )
