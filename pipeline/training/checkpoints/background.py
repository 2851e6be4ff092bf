"""Saving while the training goes on: from copies of the state, by a thread on each rank.

    step 1000      the state is copied to the host's memory          all ranks, the training waits
    1001 to 1010   the copies are written                            a thread on each rank
    step 1010      all have written; the files are dealt out         all ranks, at once
    1011 to 1020   they are forced to the disk and digested          a thread on each rank
    step 1020      the record, the name, ``latest``; older ones go   all ranks, at once

Ranks talk to each other only at such a step, where all of them do the same: a thread never does.
Killed before the last of them, the run goes on from the checkpoint before.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, UntypedStorage

Work: TypeAlias = Callable[[], object]
"""What a rank does alone: it needs no other rank, and nothing that a step changes."""

Put: TypeAlias = Callable[[Any, Callable[[Any], object]], None]
"""Takes what is to stand in a file, and what writes it: at once, or later from a copy."""


def at_once(content: Any, write: Callable[[Any], object]) -> None:
    """Write as it is."""
    write(content)


class Held:
    """Copies of what is to stand in files, to be written later."""

    def __init__(self) -> None:
        self._writes: deque[Work] = deque()

    def put(self, content: Any, write: Callable[[Any], object]) -> None:
        """Keep a copy of what may change from now on."""
        self._writes.append(partial(write, host_copy(content)))

    def write(self) -> None:
        """Write all files, and let go of each copy after it."""
        while self._writes:
            self._writes.popleft()()


class Pending:
    """A save that a thread works on.

    Args:
        phases: all of the save. What ranks do together it does itself; it yields what each does
            alone, and is gone on with when all have done that.
        work: what it has yielded last.
    """

    def __init__(self, phases: Iterator[Work], work: Work, thread: ThreadPoolExecutor) -> None:
        self.phases = phases
        self._thread = thread
        self._result: Future[object] = thread.submit(work)

    @property
    def done(self) -> bool:
        """Whether this rank has nothing left to do alone."""
        return self._result.done()

    def wait(self) -> None:
        """Wait for this rank's work; raises what went wrong in it."""
        self._result.result()

    def next(self) -> Pending | None:
        """Go on to the next work; None where the checkpoint is whole. Collective."""
        work = next(self.phases, None)
        return None if work is None else Pending(self.phases, work, self._thread)


@torch.no_grad()
def host_copy(content: Any) -> Any:
    """A copy by value, its tensors on the CPU.

    Tensors that share memory share it in the copy, so that it is written to the same bytes, but
    for the names of devices.
    """
    storages: dict[int, UntypedStorage] = {}
    copies: dict[int, Any] = {id(t): _on_host(t, storages) for t in _tensors(content)}
    return copy.deepcopy(content, copies)


def _on_host(tensor: Tensor, storages: dict[int, UntypedStorage]) -> Tensor:
    """A tensor over a copy of all the memory that it is a part of, with what else it was given."""
    storage = tensor.untyped_storage()
    if storage._cdata not in storages:
        own = UntypedStorage(storage.nbytes())
        storages[storage._cdata] = own.copy_(storage)
    view = torch.empty(0, dtype=tensor.dtype)
    view.set_(storages[storage._cdata], tensor.storage_offset(), tensor.size(), tensor.stride())
    view.__dict__.update(copy.deepcopy(vars(tensor)))  # DeepSpeed names flat tensors so
    return view.requires_grad_(tensor.requires_grad)


def _tensors(content: Any) -> Iterator[Tensor]:
    """All tensors in nested containers."""
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, Mapping):
        for value in content.values():
            yield from _tensors(value)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _tensors(value)
