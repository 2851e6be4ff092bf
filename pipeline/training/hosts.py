"""What ranks tell each other, and which of them see the same files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pipeline.training.agreement import exchange, refuse

Item = TypeVar("Item")


@dataclass(frozen=True)
class Host:
    """The ranks that write to one output directory, as one of them sees it.

    With a shared file system these are all ranks; without, those of one machine.

    Attributes:
        rank, world_size: this rank among all.
        ranks: those of this host, in order; the first *leads*: it does what is done once.
    """

    rank: int
    world_size: int
    ranks: tuple[int, ...]

    @property
    def leads(self) -> bool:
        """Whether this rank does what is done once a host."""
        return self.rank == self.ranks[0]

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """This rank's part of what the host's ranks divide among themselves."""
        return items[self.ranks.index(self.rank) :: len(self.ranks)]

    @contextlib.contextmanager
    def together(self, explain: Callable[[Exception], str] = str) -> Iterator[None]:
        """A part that all ranks of all hosts end together: a problem of one stops every one.

        Args:
            explain: the sentence for what went wrong on this rank.

        Raises:
            Agreed: on every rank, with the problems of all.
        """
        problem = None
        try:
            yield
        except (OSError, RuntimeError, ValueError) as error:  # torch tells a full disk so
            problem = explain(error)
        refuse(problem)


def find_host(shared: bool) -> Host:
    """This rank's host; collective.

    A launcher numbers the ranks of a machine one after the other, and by ``LOCAL_RANK`` from 0.
    """
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    local_ranks = exchange(local_rank)
    if shared:
        return Host(rank, len(local_ranks), tuple(range(len(local_ranks))))
    leaders = [other for other, local in enumerate(local_ranks) if local == 0]
    first = max(leader for leader in leaders if leader <= rank)
    end = min((leader for leader in leaders if leader > rank), default=len(local_ranks))
    return Host(rank, len(local_ranks), tuple(range(first, end)))
