"""Steps that are passed over: no rows are read, nothing is updated, the schedule counts on.

    skips.json     [[4000, 4120]]

Which steps these are is a pure function of the step, the recipe's ``train.skip`` and the ranges
that loss spikes have added. The latter are written down before the run is set back, beside the
checkpoints (a restart after a kill sees them) and in every later checkpoint (so does a run that
was moved).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.settings import Run
from pipeline.training.agreement import exchange, together
from pipeline.training.checkpoints.checkpoint import Checkpoints, State, read_state
from pipeline.training.checkpoints.recovery import verify
from pipeline.training.checkpoints.resume import restore
from pipeline.training.engine import Engine
from pipeline.training.guards import Spike
from pipeline.training.hosts import Host
from preprocessing.storage import InputError, write_json

SKIPS_FILE = "skips.json"

Range = tuple[int, int]


class Skips:
    """The ranges ``[from, to)`` of steps that a run passes over.

    Args:
        given: by the recipe.
        recorded: by earlier set-backs.
    """

    def __init__(self, given: Sequence[Range], recorded: Sequence[Range] = ()) -> None:
        self._ranges = (*given, *recorded)
        self.recorded = tuple(recorded)

    def end(self, step: int) -> int | None:
        """Where the passed-over steps that ``step`` belongs to end; None if it is none of them."""
        end = step
        while over := [to for begin, to in self._ranges if begin <= end < to]:
            end = max(over)
        return end if end > step else None

    def next(self, step: int, last: int) -> int:
        """The first step from ``step`` on, and up to ``last``, that is passed over."""
        return min([last, *(begin for begin, _ in self._ranges if begin >= step)])

    def abandoned(self, step: int) -> bool:
        """Whether the state after ``step`` steps was left behind by a set-back."""
        return any(begin < step < to for begin, to in self.recorded)


def read_skips(directory: Path, kept: Sequence[Range]) -> tuple[Range, ...]:
    """The recorded ranges of a run: all that any host's file or its checkpoint knows. Collective.

    Raises:
        Agreed: a file is damaged.
    """
    path = directory / SKIPS_FILE

    def read() -> set[Range]:
        try:
            plain = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
            return {(int(begin), int(end)) for begin, end in plain}
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}: damaged: {error}; remove it to pass over nothing") from None

    return tuple(sorted({*kept}.union(*exchange(together(read)))))


class SetBack:
    """Sets a training back to an earlier checkpoint, in its processes.

    Args:
        checkpoints: of the run.
        host: the ranks that share a directory; the one that leads writes there.
        recorded: ranges of steps that earlier set-backs made it pass over.

    Attributes:
        skips: all that it passes over.
    """

    def __init__(
        self,
        run: Run,
        engine: Engine,
        checkpoints: Checkpoints,
        host: Host,
        recorded: Sequence[Range],
    ) -> None:
        self.skips = Skips(run.train.skip, recorded)
        self._run = run
        self._engine = engine
        self._host = host
        self._checkpoints = checkpoints

    def target(self, step: int) -> Path | None:
        """The newest checkpoint of the state before ``step``, or earlier; None if none is kept."""
        kept = [at for at in self._checkpoints.steps() if at <= step]
        kept = [at for at in kept if not self.skips.abandoned(at)]
        newest: int | None = self._engine.exchange(max(kept, default=None))[0]
        return None if newest is None else self._checkpoints.path(newest)

    def go(self, target: Path, spike: Spike) -> State:
        """Load ``target``; the steps from there to the spike's end are passed over from now on.

        ``latest`` changes before they are written down: a run that is killed in between meets the
        same spike again, and never goes on from a state within one.
        """
        state, engine = read_state(target), self._engine
        verify(target, state, self._checkpoints, self._host)
        recorded = (*self.skips.recorded, (state.step, spike.end))
        self.skips = Skips(self._run.train.skip, recorded)
        with self._host.together():
            if self._host.leads:
                self._checkpoints.set_back(state.step)
                write_json(self._run.output.directory / SKIPS_FILE, recorded)
                for step in self._checkpoints.steps():
                    if self.skips.abandoned(step):
                        self._checkpoints.remove(step)
        restore(self._run, engine, target, state)
        return state
